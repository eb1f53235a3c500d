"""``launcher=slurm``: Hydra's submitit launcher, which here returns as soon as SLURM has the jobs.

A job is a run, or one task of a job array in a sweep. On the cluster ``srun`` starts its processes; each composes the
configuration again and runs the command.
"""

import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as SubmititLauncher
from omegaconf import OmegaConf, open_dict

from vdm.cli.options.train import TrainOptions
from vdm.cli.ready import ready
from vdm.cli.sweeps import differing, run_name
from vdm.config import ConfigError, build
from vdm.config.quoting import hydra_quoted
from vdm.training.slurm import hold_stop_signals


class SlurmLauncher(SubmititLauncher):
    """Submits jobs.

    Args:
        options: ``launcher`` in the configuration.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options=options)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check the runs, submit them, and print their folders.

        Raises:
            ConfigError: If the configuration of a run is wrong, or SLURM refuses the job.
        """
        assert self.config is not None
        parent = Path(self.config.hydra.sweep.dir)
        is_sweep = len(job_overrides) > 1
        job = self.config.hydra.job
        subdirs = [
            run_name(initial_job_idx + index, differing(job, given)) if is_sweep else "."
            for index, given in enumerate(job_overrides)
        ]
        overrides = [
            # Composed again on the cluster, the folder would get another name.
            [*given, f"hydra.sweep.dir={hydra_quoted(str(parent))}", f"hydra.sweep.subdir={hydra_quoted(subdir)}"]
            for given, subdir in zip(job_overrides, subdirs, strict=True)
        ]
        try:
            for given, subdir in zip(overrides, subdirs, strict=True):
                self._check(given, parent / subdir)
            number = self._submit(parent, overrides, subdirs, initial_job_idx)
        except ConfigError:
            _remove_unused(parent)
            raise
        if not is_sweep:
            (parent / "multirun.yaml").unlink(missing_ok=True)  # Hydra's file; the run records its own configuration
        _announce(number, parent, subdirs)
        return []

    def __call__(self, *args: Any, **kwargs: Any) -> JobReturn:
        """Run the command in one process of a job, and exit with its code."""
        hold_stop_signals()  # submitit's handlers, which would requeue, never get them ...
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # ... nor SIGCONT, which precedes each of them
        outcome = super().__call__(*args, **kwargs)
        sys.exit(outcome.return_value or 0)  # `return_value` raises the command's exception again

    def _check(self, overrides: list[str], folder: Path) -> None:
        """Refuse mistakes now, rather than on the cluster after hours in the queue."""
        from vdm.cli.train import check

        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        task_overrides: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        with open_dict(config):
            del config["hydra"]
        check(ready(config, task_overrides, folder, TrainOptions))

    def _submit(self, parent: Path, overrides: list[list[str]], subdirs: list[str], first: int) -> str:
        """Submit one job, or an array of them, and return its number."""
        import submitit
        from submitit.core.utils import FailedJobError

        assert self.config is not None
        options = build(self.params["options"], "launcher")
        folder = shlex.quote(str(parent))
        names = " ".join(map(shlex.quote, subdirs))
        # Shifted by the number of the task, the first word is the folder of its run.
        run = folder if len(overrides) == 1 else f'{folder}/"$(set -- {names}; shift $SLURM_ARRAY_TASK_ID; echo "$1")"'
        numbers = range(first, first + len(overrides))
        try:
            executor = submitit.SlurmExecutor(parent / "slurm")
            executor.update_parameters(**options.parameters(self.config.name, run))
            with redirect_stderr(StringIO()):  # submitit prints its exceptions too
                jobs = executor.map_array(
                    self,
                    overrides,
                    ["hydra.sweep.dir"] * len(overrides),
                    numbers,
                    [f"run {number}" for number in numbers],
                    [Singleton.get_state()] * len(overrides),
                )
        except (FailedJobError, RuntimeError) as error:
            raise ConfigError(f"launcher=slurm: {error}") from error
        return jobs[0].job_id.split("_")[0]


def _announce(job: str, parent: Path, subdirs: Sequence[str]) -> None:
    if len(subdirs) == 1:
        print(f"Submitted SLURM job {job}. The run is in {parent}, what it prints in {parent}/slurm/{job}_0_log.err")
    else:
        print(
            f"Submitted SLURM job array {job} of {len(subdirs)} runs. They are in {parent}, from {subdirs[0]} to"
            f" {subdirs[-1]}, what they print in {parent}/slurm/{job}_N_0_log.err"
        )


def _remove_unused(parent: Path) -> None:
    """Remove what Hydra wrote before the launcher was called, and folders that are empty then."""
    (parent / "multirun.yaml").unlink(missing_ok=True)
    with suppress(OSError):
        parent.rmdir()
        parent.parent.rmdir()
