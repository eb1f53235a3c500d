"""A path that is another thing than was asked for is called by its name, with the command that takes it."""

from pathlib import Path

import pytest

from tests.assembly.small_model import save_run, small_model
from tests.data.shard_sets import write_set
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import CONFIG_NAME, run_folder
from vdm.checkpoints.run_record import load_config
from vdm.cli.export import EXPORTED_WEIGHTS
from vdm.found_instead import found_instead, is_export


@pytest.mark.parametrize(
    ("files", "asked", "named"),
    [
        (["x/model_index.json"], "x", "a pipeline of diffusers: `vdm import from=x to=RUN`"),
        (["x/config.yaml", "x/model.safetensors"], "x", "an export: `vdm import from=x to=RUN`"),
        (["x/config.yaml"], "x", "a run: `vdm sample checkpoint=x`"),
        (["x/adapter_config.json"], "x", "a LoRA"),
        (["x/index.json", "x/shards.parquet"], "x", "a set of shards: data.path=x trains on it"),
        (["x/train-0.tar"], "x", "a folder of tars without an index: `vdm-data index x`"),
        (["x/cat.mp4"], "x", "a folder of videos: `vdm-data build input=x output=SHARDS`"),
        (["x/cat.webm"], "x/cat.webm", "a video: `vdm-data build"),
        (["x/train-0.tar"], "x/train-0.tar", "a shard: give the folder that it is in, x"),
        (["x/svd.safetensors"], "x/svd.safetensors", "a file of weights: `vdm import from=x/svd.safetensors to=RUN`"),
        (["x/model.ckpt"], "x/model.ckpt", "a pickle, which may run any code"),
        (["x/config.yaml", "x/checkpoints/step=1/a"], "x/checkpoints", "all checkpoints of a run: give the run, x"),
        (["x/config.yaml", "x/checkpoints/step=1/a"], "x/checkpoints/step=1", "a checkpoint: "),
        (["x/1/config.yaml", "x/2/config.yaml"], "x", "a folder of runs: give one of them, such as x/2"),
        (["x/notes"], "x", None),
        (["x/notes"], "x/notes", None),
        ([], "nowhere", None),
    ],
)
def test_each_kind_has_its_name_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], asked: str, named: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    said = found_instead(Path(asked))
    assert said == "" if named is None else said.startswith(f"; it is {named}")


def test_names_of_files_are_those_that_the_project_writes(tmp_path: Path) -> None:
    write_set(tmp_path / "set", {"train": (1,), "validation": (1,)})
    save_run(tmp_path / "run", small_model(), guidance_scale=1.0)
    assert "a set of shards" in found_instead(tmp_path / "set")
    assert "a run" in found_instead(tmp_path / "run")
    assert "a checkpoint" in found_instead(latest_checkpoint(tmp_path / "run"))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / CONFIG_NAME).write_bytes((tmp_path / "run" / CONFIG_NAME).read_bytes())
    (tmp_path / "export" / EXPORTED_WEIGHTS).touch()
    assert is_export(tmp_path / "export")
    assert not is_export(tmp_path / "run")


def test_export_is_no_run_but_its_configuration_can_be_read(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text("run_format: 1\nseed: 3\n")
    (tmp_path / EXPORTED_WEIGHTS).touch()
    assert load_config(tmp_path)["seed"] == 3
    for open_run in (run_folder, latest_checkpoint):
        with pytest.raises(ValueError, match="not a run; it is an export: `vdm import from="):
            open_run(tmp_path)
