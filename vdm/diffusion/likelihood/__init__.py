"""Likelihood of clips under a model: a bound by DDPM's steps, and the exact value by the probability-flow ODE."""
