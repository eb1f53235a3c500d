"""Prediction of the memory and computation of a training run, before any hardware is rented."""
