"""Samplers: from noise to clean latents by iterative denoising. One file a paper; ``base`` has the common loop."""
