"""A profile of training steps."""

import torch
from lightning.pytorch.profilers import Profiler, PyTorchProfiler

from vdm.ranges import Count, CountOrZero, Folder


def torch_profiler(dirpath: Folder, num_warmup_steps: CountOrZero = 3, num_steps: Count = 5) -> Profiler:
    """Return PyTorch's profiler, which writes a trace of some steps and a table of the costliest operations.

    Args:
        dirpath: Folder of the trace.
        num_warmup_steps: Steps before those recorded.
        num_steps: Steps recorded.
    """
    return PyTorchProfiler(
        dirpath=dirpath,
        filename="profile",
        schedule=torch.profiler.schedule(wait=1, warmup=num_warmup_steps, active=num_steps, repeat=1),
        export_to_chrome=True,
    )
