"""The mathematics of diffusion: pure functions of tensors, which know networks only through a Protocol.

Latents are noised as ``xt = alpha_t x0 + sigma_t noise``; ``t = 0`` is data. Only noise schedules take ``t``;
everything else takes ``alpha`` and ``sigma``.
"""
