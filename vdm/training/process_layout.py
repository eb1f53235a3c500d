"""How many processes there are, on which nodes, where ``srun`` or ``torchrun`` has started them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from vdm.config import ConfigError
from vdm.processes import is_from_torchrun
from vdm.training.slurm import is_shell

_OPEN = {"num_nodes": 1, "devices": "auto"}
"""Values of the trainer's keys that ask for nothing in particular."""


@dataclass(frozen=True)
class ProcessLayout:
    """Processes that somebody else has started.

    Args:
        environment: Tells Lightning their ranks and where they meet.
        launcher: The program that started them.
        num_nodes: Nodes.
        devices: Processes on each node.
    """

    environment: ClusterEnvironment
    launcher: str
    num_nodes: int
    devices: int


def find_layout(variables: Mapping[str, str] = os.environ) -> ProcessLayout | None:
    """Return how the processes are with_layout that ``torchrun`` or ``srun`` started; none if this one is alone.

    Raises:
        ConfigError: If nodes have different numbers of processes, or a job of several tasks was started without srun.
    """
    if is_from_torchrun(variables):
        per_node = int(variables["LOCAL_WORLD_SIZE"])
        return ProcessLayout(TorchElasticEnvironment(), "torchrun", int(variables["WORLD_SIZE"]) // per_node, per_node)
    if "SLURM_NTASKS" not in variables or is_shell(variables):
        return None
    if "SLURM_STEP_ID" not in variables:
        if int(variables["SLURM_NTASKS"]) > 1:
            raise ConfigError(
                f"the SLURM job has {variables['SLURM_NTASKS']} tasks: start them all with srun vdm train"
            )
        return None
    per_node = _same_on_all_nodes(variables["SLURM_STEP_TASKS_PER_NODE"])
    if "SLURM_NTASKS_PER_NODE" not in variables and int(variables["SLURM_NTASKS"]) > 1:
        raise ConfigError("SLURM must be told of processes by --ntasks-per-node, not by --ntasks alone")
    # Requeueing is this project's, between two steps; Lightning's, inside a signal handler, would tear checkpoints.
    environment = SLURMEnvironment(auto_requeue=False)
    return ProcessLayout(environment, "srun", int(variables["SLURM_STEP_NUM_NODES"]), per_node)


def cluster_environment(layout: ProcessLayout | None) -> ClusterEnvironment:
    """Return what tells Lightning of its processes.

    By itself it would take a batch script of one task for a process among others, and complain of an srun not used.
    """
    if layout is not None:
        return layout.environment
    others = (LSFEnvironment, MPIEnvironment)
    return next((environment() for environment in others if environment.detect()), LightningEnvironment())


def with_layout(trainer: Mapping[str, Any], layout: ProcessLayout | None) -> dict[str, Any]:
    """Return the trainer's configuration with the processes there are, where it leaves them open.

    Raises:
        ConfigError: If it asks for others.
    """
    if layout is None:
        return dict(trainer)
    found = {"num_nodes": layout.num_nodes, "devices": layout.devices}
    for key, number in found.items():
        if trainer.get(key, _OPEN[key]) not in (_OPEN[key], number):
            unit = "node(s)" if key == "num_nodes" else "process(es) on each node"
            raise ConfigError(f"trainer.{key}={trainer[key]}: {layout.launcher} started {number} {unit}")
    return {**trainer, **found}


def _same_on_all_nodes(tasks_per_node: str) -> int:
    """Read SLURM's ``4(x2)``, or ``4,2`` where nodes differ."""
    numbers = {int(number) for number in re.sub(r"\(x\d+\)", "", tasks_per_node).split(",")}
    if len(numbers) > 1:
        raise ConfigError(f"nodes have {tasks_per_node} tasks in SLURM: give each as many by --ntasks-per-node")
    return numbers.pop()
