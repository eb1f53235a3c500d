"""Measures of trained models: they receive models and videos, never a trainer."""
