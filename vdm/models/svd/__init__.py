"""Stable Video Diffusion (Blattmann et al. 2023): its network, its image conditions and its autoencoder."""
