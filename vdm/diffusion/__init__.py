"""Diffusion models apart from networks: pure functions of tensors, which call networks through a Protocol.

Noised latents are ``xt = alpha_t x0 + sigma_t noise``; ``t = 0`` is data. Only noise schedules take ``t``; everything
else takes ``alpha`` and ``sigma``.
"""
