"""Callbacks around the training step: saving, stopping, logging, progress, sample videos."""
