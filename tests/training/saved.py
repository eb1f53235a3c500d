"""What a run has saved and logged."""

import csv
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import ema_snapshots_of
from vdm.checkpoints.pieces import PieceFiles
from vdm.checkpoints.snapshot import SavedCheckpoint


def content(run: Path, checkpoint: Path | None = None) -> dict[str, Tensor]:
    """Return weights, EMA weights and the optimizer's state in a run's latest checkpoint, and its EMA snapshots.

    Args:
        run: Folder of the run.
        checkpoint: Another of its checkpoints.
    """
    saved = SavedCheckpoint(checkpoint or latest_checkpoint(run))
    kinds = {"weights": saved.weights, **saved.emas(), "optimizer": saved.optimizer}
    for folder in ema_snapshots_of(run):
        kinds |= {f"{folder.name} {name}": PieceFiles(folder, name) for name in ("sigma_rel_0.05", "sigma_rel_0.1")}
    return {f"{kind} {name}": files.whole(name) for kind, files in kinds.items() for name in files.shapes}


def curve(run: Path, name: str) -> dict[int, float]:
    """Return what was logged under a name at each step, over all starts of a run."""
    values: dict[int, float] = {}
    for path in sorted(run.glob("logs/*/metrics*.csv")):
        with path.open() as file:
            values |= {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}
    return values


def each_pair(names: Sequence[str]) -> list[str]:
    """Return a walk in which each name follows each once, itself included."""
    left = {name: list(names) for name in names}
    ahead, walk = [names[0]], []
    while ahead:
        following = left[ahead[-1]]
        if following:
            ahead.append(following.pop())
        else:
            walk.append(ahead.pop())
    return walk[::-1]
