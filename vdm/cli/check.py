"""``vdm check``: rehearses a training run for a few steps, and leaves nothing behind."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vdm.checkpoints.latest import checkpoints_to_try
from vdm.checkpoints.layout import run_folder
from vdm.cli.check_report import report
from vdm.cli.next_step import command, say_next
from vdm.cli.run_folder import CHECK_PREFIX
from vdm.cli.train import quieten, warn_of_short_training
from vdm.config import build
from vdm.processes import ProcessDiedError, is_first_of_run
from vdm.training.launcher import die_with_parent
from vdm.training.rehearsal import Rehearsal
from vdm.training.run_lock import refuse_if_locked
from vdm.training.training_run import TrainingRun, build_training

_SAMPLING_STEPS = 4
"""Steps of the sampler for the one video that is sampled."""
_NEVER = 10**9
"""More optimizer steps than the rehearsal takes."""


def run(config: DictConfig) -> int:
    """Rehearse the run and print a report; return the exit code."""
    die_with_parent()
    quieten()
    plain: Any = OmegaConf.to_container(config, resolve=True)
    checkpoint = None if plain["resume"] is None else Path(plain["resume"])
    folder = _folder_of_run(plain)
    if checkpoint is not None:
        checkpoints_to_try(checkpoint)
        refuse_if_locked(run_folder(checkpoint), is_first_of_run())
    rehearsal = Rehearsal()
    with _scratch_folder() as scratch:
        try:
            training = _rehearsed(plain, scratch, rehearsal)
            training.fit(checkpoint)
            training.trainer.strategy.barrier("rehearsed")
        except ProcessDiedError as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from error
        except ValueError:
            raise  # a mistake, or a bug: the caller tells which
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"The check failed at {rehearsal.stage}: {reason}", file=sys.stderr)
            return 1
    if training.trainer.is_global_zero:
        warn_of_short_training(training)
        print("\n".join(report(training, plain, rehearsal, folder)))
        given = HydraConfig.get().overrides
        chosen = [one for one in given.hydra if one.startswith(("hydra.run.dir=", "hydra.searchpath="))]
        say_next(command("vdm train", *given.task, *chosen))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 128 + training.stop.received if training.stop.received else 0


def _folder_of_run(plain: Mapping[str, Any]) -> str:
    """Return the folder that the run would have."""
    if plain["resume"] is not None:
        return str(run_folder(Path(plain["resume"])))
    chosen = Path(HydraConfig.get().runtime.output_dir)
    return f"runs/{plain['name']}/TIME" if chosen.name.startswith(CHECK_PREFIX) else str(chosen)


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Make a folder for all files of the rehearsed run, common to all processes; remove it at the end."""
    chosen = Path(HydraConfig.get().runtime.output_dir)
    scratch = chosen if chosen.name.startswith(CHECK_PREFIX) else chosen / f"{CHECK_PREFIX}rehearsal"
    scratch.mkdir(exist_ok=True)
    try:
        yield scratch
    finally:
        if is_first_of_run():
            shutil.rmtree(scratch, ignore_errors=True)
            for parent in scratch.parents[:2]:
                try:
                    parent.rmdir()
                except OSError:  # not empty, or gone
                    break


def _rehearsed(plain: Mapping[str, Any], scratch: Path, rehearsal: Rehearsal) -> TrainingRun:
    """Build the run as configured, except for parts that would leave traces or take long."""
    config: dict[str, Any] = deepcopy(dict(plain))
    config |= {"logger": {}, "profiler": None}
    config["save"] |= {"every_steps": _NEVER, "in_background": False}
    config["data"]["quarantine_path"] = None
    for node in filter(None, config["callbacks"].values()):
        if node.get("_target_", "").startswith("vdm.training.callbacks.samples."):
            node |= {"every_steps": _NEVER, "num_videos": 1, "prompts": node.get("prompts") and node["prompts"][:1]}
        elif node.get("_target_", "").startswith("vdm.training.callbacks.measuring."):
            node |= {"every_steps": _NEVER, "at_end": False}  # metrics are built and checked, and nothing is measured
    training = build_training(config, scratch)
    training.module.model.sampler = build(_in_few_steps(plain["sampler"]), "sampler")
    trainer: Any = training.trainer
    trainer.limit_val_batches = min(trainer.limit_val_batches, 1)
    trainer.callbacks.insert(0, rehearsal)
    return training


def _in_few_steps(node: Any) -> Any:
    """Return a sampler's configuration with few steps, if it has a number of steps."""
    if not isinstance(node, Mapping):
        return node
    return {
        key: min(value, _SAMPLING_STEPS) if key == "num_steps" and isinstance(value, int) else _in_few_steps(value)
        for key, value in node.items()
    }
