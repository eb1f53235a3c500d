"""Processes that ``torchrun`` or ``srun`` started for a command other than training, joined into one group."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from vdm.config import ConfigError
from vdm.training.process_layout import find_layout
from vdm.training.rendezvous import check_rendezvous

_SECONDS_TO_MEET = 300.0


@contextmanager
def joined_processes(device: torch.device) -> Iterator[None]:
    """Join the processes until the block ends; a process that was started alone stays alone.

    Args:
        device: Device of this process; on several GPUs of a machine, each process takes one.

    Raises:
        ConfigError: If the processes can't meet, or all would take one GPU.
    """
    layout = find_layout()
    if layout is None:
        yield
        return
    if device.index is not None and layout.devices > 1:
        raise ConfigError(
            f"device={device}: is one of a machine, but {layout.launcher} started {layout.devices} processes on each;"
            f" with device={device.type} each takes its own"
        )
    environment = layout.environment
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    check_rendezvous(environment, layout.num_nodes, _SECONDS_TO_MEET)
    if device.type != "cpu":
        torch.accelerator.set_device_index(environment.local_rank())
    distributed.init_process_group(
        None if device.type != "cpu" else "gloo",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
