"""Strategies: how processes share the weights, one file for each option of conf/strategy."""
