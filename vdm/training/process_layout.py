"""The number of processes and nodes, as ``srun`` or ``torchrun`` started them."""

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
"""Values of the trainer's keys that leave a number to the launcher."""


@dataclass(frozen=True)
class ProcessLayout:
    """The processes of a run that a launcher started.

    Args:
        environment: Lightning's interface to their ranks and to the address of the first process.
        launcher: Name of the launcher.
        num_nodes: Number of nodes.
        devices: Processes on each node.
    """

    environment: ClusterEnvironment
    launcher: str
    num_nodes: int
    devices: int


def find_layout(variables: Mapping[str, str] = os.environ) -> ProcessLayout | None:
    """Return the layout of the processes that ``torchrun`` or ``srun`` started; ``None`` if this one is alone.

    Args:
        variables: Environment variables.

    Raises:
        ConfigError: If nodes have different numbers of processes, if SLURM was told of processes by ``--ntasks`` alone,
            or if a job of several tasks was started without ``srun``.
    """
    if is_from_torchrun(variables):
        per_node = int(variables["LOCAL_WORLD_SIZE"])
        return ProcessLayout(TorchElasticEnvironment(), "torchrun", int(variables["WORLD_SIZE"]) // per_node, per_node)
    if "SLURM_NTASKS" not in variables or is_shell(variables):
        return None
    if "SLURM_STEP_ID" not in variables:
        if int(variables["SLURM_NTASKS"]) > 1:
            raise ConfigError(f"the SLURM job has {variables['SLURM_NTASKS']} tasks: start them all with srun")
        return None
    per_node = _tasks_on_each_node(variables["SLURM_STEP_TASKS_PER_NODE"])
    if "SLURM_NTASKS_PER_NODE" not in variables and int(variables["SLURM_NTASKS"]) > 1:
        raise ConfigError("SLURM must be told of processes by --ntasks-per-node, not by --ntasks alone")
    # Lightning would requeue the job inside a signal handler, and tear checkpoints; vdm does so between two steps.
    environment = SLURMEnvironment(auto_requeue=False)
    return ProcessLayout(environment, "srun", int(variables["SLURM_STEP_NUM_NODES"]), per_node)


def cluster_environment(layout: ProcessLayout | None) -> ClusterEnvironment:
    """Return Lightning's interface to the processes.

    Lightning's own choice mistakes the batch script of a job for one of several processes, and warns that ``srun`` is
    missing.
    """
    if layout is not None:
        return layout.environment
    others = (LSFEnvironment, MPIEnvironment)
    return next((environment() for environment in others if environment.detect()), LightningEnvironment())


def with_layout(trainer: Mapping[str, Any], layout: ProcessLayout | None) -> dict[str, Any]:
    """Return the trainer's configuration with ``num_nodes`` and ``devices`` of a layout, unchanged without one.

    Raises:
        ConfigError: If it sets numbers other than the launcher's.
    """
    if layout is None:
        return dict(trainer)
    found = {"num_nodes": layout.num_nodes, "devices": layout.devices}
    for key, number in found.items():
        if trainer.get(key, _OPEN[key]) not in (_OPEN[key], number):
            unit = "node(s)" if key == "num_nodes" else "process(es) on each node"
            raise ConfigError(f"trainer.{key}={trainer[key]}: {layout.launcher} started {number} {unit}")
    return {**trainer, **found}


def _tasks_on_each_node(tasks_per_node: str) -> int:
    """Return 4 for SLURM's ``4(x2)``, four tasks on each of two nodes; refuse ``4,2``."""
    numbers = {int(number) for number in re.sub(r"\(x\d+\)", "", tasks_per_node).split(",")}
    if len(numbers) > 1:
        raise ConfigError(f"nodes have {tasks_per_node} tasks in SLURM: give each as many by --ntasks-per-node")
    return numbers.pop()
