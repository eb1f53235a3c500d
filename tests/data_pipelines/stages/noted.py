"""Verifying that leaves a note of every shard it reads: ``python -m tests.data_pipelines.stages.noted SHARDS WORK``."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.executors.slurm import SlurmExecutor
from data_pipelines.stages.verify import check_all
from data_pipelines.stages.work_items import WorkFolder
from data_pipelines.verify import Rules
from tests.data_pipelines.executors.work import Job, leave_a_file
from vdm.data.index import read_index
from vdm.data.shards import SampleEntry


@dataclass(frozen=True)
class NotedRules(Rules):
    """Rules for shards of one sample each."""

    notes: Path = Path()
    seconds: float = 0.0
    """How long a shard takes."""
    deaths: Mapping[str, int] = field(default_factory=dict)
    """How many processes the shard with this sample kills before it is read."""

    def required(self, sample: SampleEntry) -> tuple[str, ...]:
        """Note that the shard with this sample is read."""
        leave_a_file(Job(self.notes, sample.key, self.deaths.get(sample.key, 0), self.seconds))
        return super().required(sample)


def noted_rules(notes: Path, **options: object) -> NotedRules:
    """Rules for a set with neither labels nor latents."""
    notes.mkdir(exist_ok=True)
    return NotedRules(True, 0, None, None, False, notes, **options)  # pyright: ignore


if __name__ == "__main__":
    shards, work = Path(sys.argv[1]), Path(sys.argv[2])
    executor = SlurmExecutor(num_tasks=2, cpus_per_task=1, alive_seconds=0.2, dead_seconds=1.5)
    work.mkdir(exist_ok=True)
    rules = noted_rules(work / "notes", seconds=0.3)
    for name, result in check_all(shards, read_index(shards).shards(), rules, WorkFolder(work, executor)).items():
        print(name, result.faults)
    print("all done", flush=True)
