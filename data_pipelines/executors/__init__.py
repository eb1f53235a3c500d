"""Executors: the cores of this machine, a Ray cluster, or the tasks of a SLURM array."""
