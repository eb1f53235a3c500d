"""Measures of trained models. They take models and videos, never a trainer."""
