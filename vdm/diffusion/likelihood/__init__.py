"""How probable a model finds clips: a bound by DDPM's steps, and the exact figure by the probability-flow ODE."""
