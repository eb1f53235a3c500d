"""Noise schedules: signal and noise at time t. One file a paper."""
