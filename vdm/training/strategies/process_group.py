"""The common base of strategies with several processes: how processes start, meet and time out."""

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
    """A strategy with several processes, whose handling it inherits from Lightning's DDP strategy.

    Args:
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; ``None`` chooses by device.
        timeout_seconds: How long a process waits for others.
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
        """Create the process group.

        Raises:
            ConfigError: If the processes can't meet.
        """
        try:
            super().setup_distributed()
        except (DistNetworkError, DistStoreError) as error:
            place = f"MASTER_ADDR={os.environ.get('MASTER_ADDR')}, MASTER_PORT={os.environ.get('MASTER_PORT')}"
            raise ConfigError(f"{place}: processes can't meet there: {str(error).splitlines()[0]}") from error
