"""Where work is done: on this machine's cores, on a Ray cluster, or in the tasks of a SLURM array."""
