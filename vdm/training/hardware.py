"""The hardware that a run is trained on, for its record."""

import os
import platform
import socket
from pathlib import Path

import torch
from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on


class Hardware(TypedDict):
    """The machine of the first process."""

    host: str
    nodes: str
    """All machines of a SLURM job, as SLURM lists them; else the host."""
    cpu: str
    cores: int
    """Cores that this process may use."""
    memory_gib: float
    gpus: list[str]
    """Names of the devices that this process may use."""


def find_hardware() -> Hardware:
    """Describe the machine of this process; what is unknown is empty or 0."""
    host = socket.gethostname()
    return {
        "host": host,
        "nodes": os.environ.get("SLURM_JOB_NODELIST") or host,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _cpu() -> str:
    try:  # Linux; elsewhere, and on ARM, the platform's own name
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
