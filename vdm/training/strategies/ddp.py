"""Data parallel: each process holds the whole model."""

from typing import Any

from torch.nn.parallel import DistributedDataParallel

from vdm.models.experts import TwoExperts
from vdm.ranges import Seconds
from vdm.training.strategies.process_group import Backend, ProcessGroupStrategy


class DataParallel(ProcessGroupStrategy):
    """Each process holds the whole model and averages gradients with the others.

    Args:
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; none chooses by device.
        timeout_seconds: How long a process waits for others.
        exact_resume: Sum gradients in the same order in the first step after a start as in later ones, so that a
            resumed run equals an uninterrupted one bit for bit, also on three or more processes.
    """

    def __init__(
        self, process_group_backend: Backend | None = None, timeout_seconds: Seconds = 1800, exact_resume: bool = True
    ) -> None:
        super().__init__(process_group_backend, timeout_seconds, gradient_as_bucket_view=True)
        self.exact_resume = exact_resume

    @property
    def communication_seconds(self) -> float | None:
        """How long a step lately waited for the sum of gradients, as DDP measures it now and then."""
        if not isinstance(self.model, DistributedDataParallel):
            return None
        measured: Any = self.model._get_ddp_logging_data()  # there is no public way
        both = measured.get("backward_comm_time"), measured.get("backward_compute_comm_overlap_time")
        return None if None in both else max(0.0, (both[0] - both[1]) / 1e9)

    def configure_ddp(self) -> None:
        """Wrap the model; with ``exact_resume``, keep DDP from rebuilding its buckets after the first step.

        Weights that a step does not use are allowed if there are two experts.
        """
        assert self.model is not None
        both_train = any(isinstance(each, TwoExperts) and len(each.trained) == 2 for each in self.model.modules())
        if both_train or (self.exact_resume and self.world_size > 2):
            # DDP rebuilds them in the order in which gradients arrived, unless it looks for unused weights. On two
            # processes the order does not matter, since a + b = b + a. Of two experts, a step uses one; the weights
            # of the other then have no gradients, rather than zeros.
            self.wrapper_options["find_unused_parameters"] = True
        super().configure_ddp()
