"""Extractors, which describe clips by numbers."""
