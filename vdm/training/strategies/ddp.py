"""Data parallel: each process holds the whole model."""

from vdm.ranges import Seconds
from vdm.training.strategies.process_group import Backend, ProcessGroupStrategy


class DataParallel(ProcessGroupStrategy):
    """Each process holds the whole model and averages gradients with the others.

    Args:
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; none chooses by device.
        timeout_seconds: After how long a process that waits for others gives up.
        exact_resume: Add up gradients in the same order from the first step after a start on as later, so that a
            resumed run equals an uninterrupted one bit for bit on three and more processes too.
    """

    def __init__(
        self, process_group_backend: Backend | None = None, timeout_seconds: Seconds = 1800, exact_resume: bool = True
    ) -> None:
        super().__init__(process_group_backend, timeout_seconds, gradient_as_bucket_view=True)
        self.exact_resume = exact_resume

    def configure_ddp(self) -> None:
        """Wrap the model, and keep DDP from putting gradients together anew after its first step, if asked to."""
        if self.exact_resume and self.world_size > 2:
            # In the order in which they came in its first step; it does not where it looks for unused weights. On two
            # processes the order is of no matter, since a + b = b + a.
            self.wrapper_options["find_unused_parameters"] = True
        super().configure_ddp()
