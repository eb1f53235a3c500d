"""What strategies of several processes have in common: how processes are started, find each other and give up."""

import os
from datetime import timedelta
from typing import Any, Literal

from torch.distributed import DistNetworkError, DistStoreError

from vdm.config import ConfigError
from vdm.training.launcher import TrainingLauncher
from vdm.training.lightning_internals import OpenDDPStrategy
from vdm.training.strategies.slicewise import SlicewiseStrategy

Backend = Literal["nccl", "gloo"]


class ProcessGroupStrategy(SlicewiseStrategy, OpenDDPStrategy):
    """A strategy of several processes; of Lightning's DDP it keeps all that concerns these.

    Args:
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; none chooses by device.
        timeout_seconds: After how long a process that waits for others gives up.
        ddp: Options of DDP's wrapper of the model.
    """

    def __init__(self, process_group_backend: Backend | None, timeout_seconds: float, **ddp: Any) -> None:
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be > 0, but is {timeout_seconds}")
        timeout = timedelta(seconds=timeout_seconds)
        super().__init__(process_group_backend=process_group_backend, timeout=timeout, **ddp)

    def make_launcher(self, timeout_seconds: float) -> TrainingLauncher:
        """Return the launcher, which ends all processes when one ends before training begins."""
        assert self.cluster_environment is not None
        return TrainingLauncher(self.cluster_environment, self.num_processes, self.num_nodes, timeout_seconds)

    def setup_distributed(self) -> None:
        """Let processes meet.

        Raises:
            ConfigError: If they can't.
        """
        try:
            super().setup_distributed()
        except (DistNetworkError, DistStoreError) as error:
            place = f"MASTER_ADDR={os.environ.get('MASTER_ADDR')}, MASTER_PORT={os.environ.get('MASTER_PORT')}"
            raise ConfigError(f"{place}: processes can't meet there: {str(error).splitlines()[0]}") from error
