"""Noise schedules: how much signal and how much noise there is at time t. One file a paper."""
