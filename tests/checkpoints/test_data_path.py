from pathlib import Path

import pytest

from vdm.checkpoints.data_path import resolve_data_path
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.evaluated_data import own_path

NODE = {"_target_": "vdm.models.autoencoder.PixelAutoencoder"}
PARTS = {"encoder": NODE, "diffusion": NODE, "sampler": NODE, "guidance": NODE}
CONFIG = {**PARTS, "model": {"network": NODE, "conditioner": NODE}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder in which training was started; the present folder is another."""
    (tmp_path / "project" / "shards").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return str(tmp_path / "project")


def test_folders_are_looked_for_where_training_was_started(project: str) -> None:
    there = f"{project}/shards"
    assert resolve_data_path("shards", project) == there
    Path(there, "a").mkdir()
    Path(there, "b").mkdir()
    assert resolve_data_path("shards/{a,b}", project) == f"{there}/{{a,b}}"
    assert resolve_data_path("shards/a::s3://bucket/set::lost", project) == f"{there}/a::s3://bucket/set::lost"
    assert resolve_data_path("shards/{a,lost}", project) == "shards/{a,lost}"
    assert resolve_data_path("shards/{a", project) == "shards/{a"
    assert resolve_data_path({"shards": 3.0, "s3://bucket/set": 1.0}, project) == {there: 3.0, "s3://bucket/set": 1.0}


def test_what_is_not_there_counts_from_the_present_folder(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("lost", "/shards", "s3://bucket/shards", "file://shards"):
        assert resolve_data_path(path, project) == path
    assert resolve_data_path("shards", None) == "shards"
    monkeypatch.chdir(project)
    assert resolve_data_path("shards", project) == "shards"


def test_run_is_evaluated_on_its_own_data_from_another_folder_and_does_not_show_where_that_is(project: str) -> None:
    config = {**CONFIG, "data": {"path": "shards"}, "started_in": project}
    trained = RunConfig.of(config, Path("config.yaml"))
    assert own_path(trained) == f"{project}/shards"
    assert project not in trained.text
    assert project not in str(trained.plain())
