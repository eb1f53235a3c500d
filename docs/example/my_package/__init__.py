"""An example package with its own network, sampler and objective."""
