"""A network, a sampler and an objective of one's own."""
