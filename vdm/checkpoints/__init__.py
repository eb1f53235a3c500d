"""Checkpoints without pickle: the format, writing, reading and what a run's folder holds."""
