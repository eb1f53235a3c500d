"""Work on a Ray cluster whose machines share the folders.

It uses Ray's tasks rather than Ray Data: results go to the shared disk, so Ray has no data to stream, and Ray Data
would end all of the work when one item costs two processes.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from data_pipelines.executors.base import MAX_DEATHS, Item
from data_pipelines.executors.local import do
from vdm.extras import needs_extra
from vdm.ranges import Location, NotNegative, Positive, Size


class RayExecutor:
    """Tasks of Ray, which retries a task once if its process or machine dies.

    Args:
        address: Address of the cluster; ``auto`` is the cluster of this machine, None starts Ray on this machine alone.
        cpus_per_task: Cores that Ray reserves for a task.
        gpus_per_task: GPUs that Ray reserves for a task, also a fraction; needed to run the encoders on GPUs.
        tasks_in_flight: Maximum number of tasks that are submitted to Ray at a time.
    """

    shares_folders = False

    def __init__(
        self,
        address: Location | None = None,
        cpus_per_task: Positive = 1.0,
        gpus_per_task: NotNegative = 0.0,
        tasks_in_flight: Size = 1000,
    ) -> None:
        with needs_extra("ray", "executor=ray"):
            import ray  # noqa: F401
        self.address, self.tasks_in_flight = address, tasks_in_flight
        self.options = {"num_cpus": cpus_per_task, "num_gpus": gpus_per_task, "max_retries": MAX_DEATHS - 1}

    def submit(self, log_folder: Path) -> str | None:
        """See ``Executor.submit``: nothing is submitted."""
        return None

    def run(
        self, work: Callable[[Item], None], items: Mapping[str, Item], locks: Path
    ) -> Iterator[tuple[str, str | None]]:
        """See ``Executor.run``."""
        if not items:
            return
        import ray

        self._connect()
        task = ray.remote(do).options(**self.options)
        waiting = iter(items.items())
        running: dict[Any, str] = {}
        while True:
            for named in islice(waiting, self.tasks_in_flight - len(running)):
                running[task.remote(work, named)] = named[0]
            if not running:
                return
            ready, _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready[0]), _result(ready[0])

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        try:
            ray.init(address=self.address, log_to_driver=False, include_dashboard=None if self.address else False)
        except (ConnectionError, ValueError) as error:
            raise ValueError(f"executor.address={self.address}: no Ray there: {str(error).splitlines()[0]}") from None

    def once(self, work: Callable[[], None], name: str, locks: Path) -> None:
        """See ``Executor.once``."""
        work()


def _result(reference: Any) -> str | None:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        return f"the process that read it died ({str(error).strip().splitlines()[0]})"
