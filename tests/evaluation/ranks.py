"""Run as one of several processes, this measures stand-ins of videos and prints the figures.

``python -m tests.evaluation.ranks`` prints one JSON object by case: the metrics' entries, or the error.
"""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tests.evaluation.test_measure import Brightness, Difference, MeanColor, Numbers, named
from tests.training.zygote import free_port
from vdm.checkpoints.collectives import rank
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.feature_cache import FeatureCache
from vdm.evaluation.measure import NamedMetric, measure
from vdm.evaluation.metric import Metric
from vdm.evaluation.sources.base import Block, Views
from vdm.evaluation.statistics.frechet import FrechetDistance
from vdm.evaluation.statistics.mean import Mean, MeanDifference
from vdm.training.joined_processes import joined_processes


@dataclass
class Broken(Numbers):
    """A source that the process of one rank can't read."""

    broken_rank: int = 1

    def views(self, blocks: Sequence[Block], rules: Collection[ClipRule]) -> Iterator[tuple[int, Views]]:
        yield from super().views(blocks[:1], rules)
        if rank() == self.broken_rank:
            raise ValueError("the source has gone")
        yield from super().views(blocks[1:], rules)


def _metrics(strict: bool = False) -> dict[str, NamedMetric]:
    return {
        "frechet": named(Metric(MeanColor(), FrechetDistance(), num_frames=2, strict=strict)),
        "difference": named(Metric(Brightness(), MeanDifference(), num_frames=3, num_reference=8, strict=strict)),
        "first": named(Metric(Brightness(), Mean(), num_frames=2, num_videos=4, strict=strict)),
        "pairs": named(Metric(Difference(), Mean(), num_frames=2, strict=strict)),
    }


def _cases() -> dict[str, tuple[dict[str, NamedMetric], Numbers, Numbers]]:
    """Return metrics, videos and reference by case; blocks have three videos, and batches four."""
    bad = (7, 1, 5, 4)
    return {
        "one block too few": (_metrics(), Numbers(7, 100.0), Numbers(14, 130.0)),
        "last block not full": (_metrics(), Numbers(10, 100.0), Numbers(11, 130.0)),
        "unusable": (_metrics(), Numbers(13, 100.0, bad=bad), Numbers(14, 130.0, bad=(0, 13))),
        "one process has none": ({"pairs": _metrics()["pairs"]}, Numbers(2, 100.0), Numbers(9, 130.0)),
        "only one has usable ones": (
            {"frechet": _metrics()["frechet"]},
            Numbers(9, 100.0, bad=(0, 1, 2, 6, 7, 8)),
            Numbers(9, 130.0),
        ),
        "none usable": (_metrics(), Numbers(7, 100.0, bad=range(7)), Numbers(9, 130.0)),
        "strict": (_metrics(strict=True), Numbers(13, 100.0, bad=bad), Numbers(14, 130.0)),
        "broken in the second": (_metrics(), Broken(13, 100.0), Numbers(14, 130.0)),
        "broken in the first": (_metrics(), Broken(13, 100.0, broken_rank=0), Numbers(14, 130.0)),
    }


def measured() -> dict[str, Any]:
    """Return what this process finds in each case."""
    found: dict[str, Any] = {}
    for name, (metrics, videos, reference) in _cases().items():
        try:
            found[name] = {
                key: one.plain() for key, one in measure(metrics, videos, reference, reference).whole().items()
            }
        except ValueError as error:
            found[name] = str(error)
    return found | _measured_twice()


def _measured_twice() -> dict[str, Any]:
    """Return what this process finds when the first process alone has kept what describes the reference."""
    metric, reference = {"frechet": _metrics()["frechet"]}, Numbers(9, 130.0, identity="content")
    with TemporaryDirectory() as folder:  # each process has a folder of its own, and the first writes
        cache = FeatureCache(Path(folder))
        twice = [measure(metric, Numbers(10, 100.0), reference, cache=cache).whole() for _ in range(2)]
        num_kept = len(list(Path(folder).iterdir()))
    assert num_kept == (rank() == 0)
    return {f"kept {number}": {"frechet": one["frechet"].plain()} for number, one in enumerate(twice)}


def measured_by(num_processes: int) -> list[dict[str, Any]]:
    """Start as many processes under the variables of ``torchrun``, and return what each finds."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "test"}
    common |= {"WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes), "GROUP_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.evaluation.ranks"],
            env=os.environ | common | {"RANK": str(number), "LOCAL_RANK": str(number), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(num_processes)
    ]
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(err for _, err in said)
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


if __name__ == "__main__":
    with joined_processes(torch.device("cpu")):
        print(json.dumps(measured()))
