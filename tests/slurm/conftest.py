import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.data.shard_sets import write_set
from tests.slurm.cluster import Cluster, cluster, missing_programs
from tests.training.runs import TINY

CHECKOUT = Path(__file__).resolve().parents[2]


SECONDS = 300
"""For anything that a job does; a start of Python with all imports takes long where many jobs share few cores."""


class Submitted(NamedTuple):
    job: str
    run: Path
    printed: str


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A private SLURM of two nodes. Without its daemons tests are skipped, or fail under VDM_REQUIRE_SLURM=1."""
    missing = missing_programs()
    if missing:
        message = f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm"
        if os.environ.get("VDM_REQUIRE_SLURM") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 11 training and 5 validation clips of 4 frames."""
    return write_set(tmp_path_factory.mktemp("slurm-shards"), {"train": (5, 6), "validation": (5,)})


def vdm(slurm: Cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``vdm`` in a folder, on what is the cluster's login node."""
    code = "import sys; from vdm.cli.main import main; sys.argv[0] = 'vdm'; main()"
    variables = {**slurm.variables, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def submit(slurm: Cluster, folder: Path, shards: Path, *arguments: str) -> Submitted:
    """Submit a small run on two nodes, or a sweep if ``-m`` is among the arguments."""
    flags = [argument for argument in arguments if argument.startswith("-")]
    settings = [argument for argument in arguments if not argument.startswith("-")]
    outcome = vdm(slurm, folder, "train", *flags, *on_two_nodes(shards), *settings)
    assert outcome.returncode == 0, outcome.stderr
    found = re.match(r"Submitted SLURM job (?:array )?(\d+).* (?:is|are) in (\S+?),? ", outcome.stdout)
    assert found is not None, outcome.stdout
    return Submitted(found[1], folder / found[2].removesuffix("/0"), outcome.stdout)


def on_two_nodes(shards: Path) -> list[str]:
    """Return the settings of a small run on two nodes of one process each."""
    # The nodes' names are no hosts' names here, where both are one host.
    setup = "launcher.setup=['export MASTER_ADDR=127.0.0.1']"
    nodes = ["launcher=slurm", "nodes=2", "gpus_per_node=0", "launcher.cpus_per_task=1", setup]
    return [*nodes, f"data.path={shards}", *TINY, "trainer.max_steps=20"]


def wait_for_start(slurm: Cluster, submitted: Submitted, start: int) -> list[int]:
    """Wait until both processes of a start are where they wait for a signal; return their numbers."""
    files = [submitted.run / f"start{start}.rank{rank}" for rank in range(2)]
    deadline = time.monotonic() + SECONDS
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline, _story(slurm, submitted)
        time.sleep(0.1)
    return [int(file.read_text()) for file in files]


def start_now(slurm: Cluster, submitted: Submitted) -> None:
    """Spare a requeued job the minutes that SLURM makes it wait."""
    slurm.wait(submitted.job, "PENDING", seconds=SECONDS)
    slurm.run("scontrol", "update", f"JobId={submitted.job}", "StartTime=now")


def _story(slurm: Cluster, submitted: Submitted) -> str:
    logs = sorted((submitted.run / "slurm").glob("*_log.*"))
    return "\n".join([str(slurm.state(submitted.job)), *(f"{path}\n{path.read_text()[-3000:]}" for path in logs)])
