"""The devices of a training run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from vdm.config import build, errors_at
from vdm.training.process_layout import cluster_environment, find_layout

TRAINER_ERRORS = (MisconfigurationException, RuntimeError, TypeError)
"""What Lightning's trainer raises for devices that do not exist, and for options that exclude each other."""
NO_EXTRAS: Mapping[str, Any] = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Options that keep Lightning's trainer from adding callbacks of its own."""


@dataclass(frozen=True)
class Devices:
    """The devices of all processes, one for each process.

    Args:
        first: The first device.
        per_node: Processes on each node.
        num_nodes: Nodes.
        memory_bytes: Memory of each device.
    """

    first: torch.device
    per_node: int
    num_nodes: int
    memory_bytes: int

    @property
    def number(self) -> int:
        """Processes on all nodes."""
        return self.per_node * self.num_nodes


def find_devices(trainer: Mapping[str, Any]) -> Devices:
    """Return the devices that Lightning chooses for a configuration of the trainer.

    A temporary trainer chooses them: the strategy depends on them, and must exist before the real trainer is built.

    Raises:
        ConfigError: If there are no such devices.
    """
    keys = ("_target_", "accelerator", "devices", "num_nodes")
    with errors_at("trainer", TRAINER_ERRORS):
        probe = build(
            {key: trainer[key] for key in keys if key in trainer},
            "trainer",
            plugins=cluster_environment(find_layout()),
            logger=False,
            **NO_EXTRAS,
        )
    first = probe.strategy.root_device
    if first.type == "cuda":
        memory = torch.cuda.get_device_properties(first).total_memory
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // probe.num_devices
    return Devices(first, probe.num_devices, probe.num_nodes, memory)
