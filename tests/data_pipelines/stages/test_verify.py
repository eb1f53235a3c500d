"""Verifying as a stage: shared by all workers, and not done again."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipelines import verify
from data_pipelines.executors.base import Executor
from data_pipelines.executors.local import LocalExecutor
from data_pipelines.executors.ray import RayExecutor
from data_pipelines.executors.slurm import SlurmExecutor
from data_pipelines.stages.verify import check_all
from data_pipelines.stages.work_items import WorkFolder
from data_pipelines.verify import VerifySettings
from tests.data_pipelines.conftest import Build, Curate
from tests.data_pipelines.executors.work import start_task, times_begun
from tests.data_pipelines.stages.noted import noted_rules
from vdm.data.index import read_index
from vdm.data.shards import file_checksum
from vdm.data.sidecars import read_samples, sidecar_name


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts by shard how often it is read."""
    counter: Counter[str] = Counter()

    def counted(path: Path) -> str:
        counter[path.name] += 1
        return file_checksum(path)

    monkeypatch.setattr(verify, "file_checksum", counted)
    return counter


@pytest.fixture
def shards(run_build: Build, tmp_path: Path) -> Path:
    """A set of twelve shards of one sample each."""
    run_build(samples_per_shard=1)
    return tmp_path / "shards"


@pytest.fixture(params=["local", "ray", "slurm"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    if request.param == "ray":
        import ray

        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        yield RayExecutor()
        ray.shutdown()
    elif request.param == "slurm":
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
        yield SlurmExecutor(num_tasks=1, cpus_per_task=2, alive_seconds=0.2, dead_seconds=1.5)
    else:
        yield LocalExecutor(2)


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _results(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "shards.work/units/verify").iterdir())


def test_finished_set_is_not_read_again(run_curate: Curate, tmp_path: Path, read: Counter[str]) -> None:
    first, names = run_curate(), {shard.name for shard in read_index(tmp_path / "shards").shards()}
    assert read == dict.fromkeys(names, 1)
    read.clear()

    again = run_curate()

    assert read == {}
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]
    assert "faults: 0" in again.out
    assert verify.verify(VerifySettings(tmp_path / "shards", decode=False, num_workers=0)) == 0
    assert read == dict.fromkeys(names, 1)  # the command of its own takes nothing for known


def test_shard_damaged_since_is_found_in_every_run_until_it_is_mended(
    run_curate: Curate, tmp_path: Path, read: Counter[str]
) -> None:
    run_curate()
    shard = read_index(tmp_path / "shards").splits["train"][0]
    sample = read_samples(tmp_path / "shards", shard)[0]
    read.clear()
    _flip(tmp_path / "shards" / shard.name, sample.members["mp4"].offset + 10)

    for _ in range(2):
        found = run_curate()
        assert f"{shard.name}: its checksum is not the one in the index\n" in found.err
        assert f"{sample.key}.mp4" in found.err
        assert "faults: 2; delete the shards named" in found.out
    assert read == {shard.name: 2}
    _flip(tmp_path / "shards" / shard.name, sample.members["mp4"].offset + 10)

    assert "faults: 0" in run_curate().out
    assert len(_results(tmp_path)) == 2


def test_sidecar_damaged_since_is_found(run_curate: Curate, tmp_path: Path, read: Counter[str]) -> None:
    run_curate()
    read.clear()
    sidecar = tmp_path / "shards" / sidecar_name("train-000000.tar")
    sidecar.write_text(sidecar.read_text().replace('"mp4"', '"mp5"', 1))

    assert "train-000000.tar: " in run_curate().err
    assert read == {"train-000000.tar": 1}


def test_results_damaged_by_a_power_failure_are_made_anew(
    run_curate: Curate, tmp_path: Path, read: Counter[str]
) -> None:
    run_curate()
    read.clear()
    _results(tmp_path)[0].write_bytes(b"")

    assert "faults: 0" in run_curate().out
    assert sum(read.values()) == 1


def test_results_of_shards_that_are_no_more_are_removed(run_curate: Curate, tmp_path: Path) -> None:
    for count in (2, 500, 3):
        run_curate(f"samples_per_shard={count}")
        assert len(_results(tmp_path)) == len(read_index(tmp_path / "shards").shards())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_killed_process_costs_a_second_try_of_its_shard_and_the_rest_is_kept(
    executor: Executor, shards: Path, tmp_path: Path
) -> None:
    entries = read_index(shards).shards()[:4]
    keys = [read_samples(shards, entry)[0].key for entry in entries]
    rules = noted_rules(tmp_path / "notes", deaths={keys[1]: 1, keys[3]: 3})
    folder = WorkFolder(tmp_path / "work", executor)

    found = check_all(shards, entries, rules, folder)

    assert times_begun(tmp_path / "notes") == dict(zip(keys, (1, 2, 1, 2), strict=True))
    (fault,) = found.pop(entries[3].name).faults
    assert "the process that read it died" in fault
    assert [(result.faults, result.keys) for result in found.values()] == [((), (key,)) for key in keys[:3]]

    if isinstance(executor, SlurmExecutor):
        executor.job = "6"
    again = check_all(shards, entries, rules, folder)

    assert times_begun(tmp_path / "notes") == dict(zip(keys, (1, 2, 1, 4), strict=True))
    assert [result.faults for result in again.values()] == [()] * 4


def _task(shards: Path, work: Path, number: int) -> subprocess.Popen[str]:
    return start_task(number, "tests.data_pipelines.stages.noted", shards, work, stderr=subprocess.PIPE)


def _printed(task: subprocess.Popen[str]) -> list[str]:
    output, errors = task.communicate(timeout=120)
    assert task.returncode == 0, errors
    return output.splitlines()


def test_tasks_of_an_array_share_the_shards_and_tell_the_same(shards: Path, tmp_path: Path) -> None:
    _flip(shards / "train-000001.tar", 1000)
    outputs = [_printed(task) for task in [_task(shards, tmp_path / "work", number) for number in range(2)]]

    assert outputs[0] == outputs[1]
    assert outputs[0][-1] == "all done"
    assert [line.split()[0] for line in outputs[0] if "its checksum is not" in line] == ["train-000001.tar"]
    assert list(times_begun(tmp_path / "work/notes").values()) == [1] * 12
    assert len({path.read_text() for path in (tmp_path / "work/notes").glob("*.begun-0")}) == 2


def test_killed_task_s_shards_are_read_by_the_other_with_at_most_its_current_one_again(
    shards: Path, tmp_path: Path
) -> None:
    doomed, other = (_task(shards, tmp_path / "work", number) for number in range(2))
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "work/notes").glob("*.begun-*"))) < 4:
        assert time.monotonic() < deadline, "no shard is read"
        time.sleep(0.02)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()

    assert len(_printed(other)) == 13
    begun = times_begun(tmp_path / "work/notes")
    assert len(begun) == 12
    assert sum(begun.values()) <= 13
