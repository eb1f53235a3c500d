"""``vdm runs``: lists the runs below a folder. It imports no PyTorch and opens no checkpoint."""

import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vdm.checkpoints.layout import checkpoints_of
from vdm.cli.next_step import command, say_next
from vdm.cli.options.runs import RunsOptions
from vdm.cli.run_search import find_runs
from vdm.cli.run_status import RunStatus, status_of
from vdm.cli.run_table import as_csv, as_json, table
from vdm.config.options import parse

_ORDERS: Mapping[str, Callable[[RunStatus], Any]] = {
    "age": lambda status: -(status.alive or 0.0),
    "step": lambda status: -(-1 if status.step is None else status.step),
    "loss": lambda status: math.inf if status.loss is None or math.isnan(status.loss) else status.loss,
    "name": lambda status: str(status.run),
}


def run(config: DictConfig) -> None:
    """Print the runs, and what to do with the first one."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(RunsOptions, plain)
    statuses = sorted((status_of(found) for found in find_runs(options.folder)), key=_ORDERS["name"])
    statuses.sort(key=_ORDERS[options.sort])
    if options.format == "json":
        print(as_json(statuses, options.folder))
    elif options.format == "csv":
        print(as_csv(statuses, options.folder))
    else:
        _print_table(statuses, options.folder)


def _print_table(statuses: Sequence[RunStatus], folder: Path) -> None:
    if not statuses:
        print(f"No runs in {folder} or below")
        say_next(command("vdm train", data__path="SHARDS"))
        return
    print("\n".join(table(statuses, folder, _width())))
    saved = [one for one in statuses if checkpoints_of(one.run) and str(one.run).isprintable()]
    ended = next((one for one in saved if one.state in ("stopped", "failed", "killed")), None)
    trained = next(iter(saved), None)
    commands = [] if ended is None else [command("vdm train", resume=ended.run)]
    commands += [] if trained is None else [command("vdm sample", checkpoint=trained.run)]
    if commands:
        say_next(*commands)


def _width() -> int | None:
    """Return the width of the terminal; ``None`` where the table is written elsewhere."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns
