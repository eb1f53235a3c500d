"""Captioners: models that describe a clip in words."""
