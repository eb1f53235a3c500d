from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.executors.base import Executor
from data_pipelines.executors.local import LocalExecutor
from data_pipelines.executors.ray import RayExecutor
from tests.data_pipelines.executors.work import jobs, leave_a_file, times_begun


@pytest.fixture(scope="module")
def ray() -> Iterator[RayExecutor]:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield RayExecutor()
    ray.shutdown()


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return LocalExecutor(2) if request.param == "local" else request.getfixturevalue("ray")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster of one node, on this machine, to which others may be added; not the one of the other tests."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_killed_process_costs_a_second_try_of_its_item_and_nothing_else(executor: Executor, tmp_path: Path) -> None:
    work = jobs(tmp_path, 5)
    work["job1"] = replace(work["job1"], deaths=1)
    work["job3"] = replace(work["job3"], deaths=9)
    work["job4"] = replace(work["job4"], unavailable=True)

    outcomes = dict(executor.run(leave_a_file, work, tmp_path / "locks"))

    died = outcomes.pop("job3")
    assert died is not None
    assert "the process that read it died" in died
    assert outcomes == {"job0": None, "job1": None, "job2": None, "job4": "the disk is away"}
    assert times_begun(tmp_path) == {"job0": 1, "job1": 2, "job2": 1, "job3": 2, "job4": 1}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_machine_of_a_cluster_that_dies_costs_a_second_try_of_its_items(cluster: Any, tmp_path: Path) -> None:
    machine, executor = cluster.add_node(num_cpus=1), RayExecutor(cluster.address)
    (tmp_path / "before").mkdir()
    for _ in range(40):  # until both machines are at work
        list(executor.run(leave_a_file, jobs(tmp_path / "before", 4, seconds=0.5), tmp_path / "locks"))
        processes = {path.read_text() for path in (tmp_path / "before").glob("*.begun-*")}
        if len(processes) > 1:
            break
    assert len(processes) == 2
    work, outcomes = jobs(tmp_path, 6, seconds=1.0), {}
    for name, outcome in executor.run(leave_a_file, work, tmp_path / "locks"):
        outcomes[name] = outcome
        if len(outcomes) == 2:
            cluster.remove_node(machine, allow_graceful=False)
    assert outcomes == dict.fromkeys(work)
    assert sum(times_begun(tmp_path).values()) <= len(work) + 1
    assert all((tmp_path / f"{name}.done").exists() for name in work)
