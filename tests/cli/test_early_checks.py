"""What options name, and what they would need, is looked at before a model is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.test_options import ALL, given
from tests.data.shard_sets import write_set
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.run_record import record_run
from vdm.cli.options import memory
from vdm.cli.options.memory import GIB, check_memory
from vdm.config import ConfigError
from vdm.config.options import parse

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with a run, a set, a file and a folder that can't be written to."""
    monkeypatch.chdir(tmp_path)
    record_run(Path("run"), {"clip": {"num_frames": 8, "height": 32, "width": 64}})
    checkpoint_folder(Path("run"), 3).mkdir(parents=True)
    record_run(Path("untrained"), {"clip": None})
    Path("untrained/checkpoints").mkdir()
    write_set(Path("shards"), {"train": (1,), "validation": (1,)})
    Path("file").write_text("a dog")
    Path("empty").mkdir()
    record_run(Path("export"), {})
    Path("export/model.safetensors").touch()
    Path("clip.mp4").touch()
    return tmp_path


def told(command: str, **values: Any) -> Any:
    """Return the options of a command."""
    cls = ALL[command].options_class()
    assert cls is not None
    plain = {**given(command), **values}
    if command in ("train", "plan") and "data_path" in plain:
        plain["data"] = {**plain["data"], "path": plain.pop("data_path")}
    return parse(cls, plain)


@pytest.mark.parametrize(
    ("command", "values", "message"),
    [
        ("sample", {"checkpoint": "nowhere"}, "nowhere: not a run: there is no config.yaml, nor such a folder"),
        ("sample", {"checkpoint": "file"}, "file: not a run: there is no config.yaml"),
        (
            "sample",
            {"checkpoint": "untrained"},
            "untrained: there is no checkpoint: the run ended before its first one",
        ),
        ("sample", {"guide": "nowhere"}, "guide: nowhere: not a run"),
        ("sample", {"image": "nowhere.png"}, "image=nowhere.png: no such file"),
        ("sample", {"image": "empty"}, "image=empty: is a folder; give a file"),
        ("sample", {"prompts_file": "empty"}, "prompts_file=empty: is a folder; give a file"),
        ("sample", {"input": "nowhere.mp4", "task": "extend"}, "input=nowhere.mp4: no such file"),
        ("sample", {"output": "file"}, "output=file: can't be written to: Not a directory"),
        ("sample", {"output": "file/a/b"}, "output=file/a/b: can't be written to: Not a directory"),
        ("evaluate", {"data_path": "nowhere"}, "data_path: nowhere: no such folder"),
        ("evaluate", {"data_path": "run"}, "data_path: run: not a set of shards: it has no index.json; it is a run: "),
        ("train", {"data_path": "clip.mp4"}, "data.path: clip.mp4: not a set of shards: it has no index.json; it is a"),
        ("plan", {"data_path": "run"}, "data.path: run: not a set of shards: it has no index.json; it is a run: "),
        ("train", {"init_from": "export"}, "init_from: export: not a run; it is an export: `vdm import from=export "),
        ("sample", {"checkpoint": "export"}, "export: not a run; it is an export: `vdm import from=export to=RUN`"),
        ("sample", {"guide": "shards"}, "guide: shards: not a run: there is no config.yaml; it is a set of shards"),
        ("ema", {"output": "empty", "checkpoint": "nowhere"}, "nowhere: not a run"),
        ("ema", {"output": "run"}, "output=run: exists already"),
        ("export", {"to": "file"}, "to=file: exists already"),
        ("export", {"to": "file/x"}, "to=file/x: can't be written to: Not a directory"),
        ("export", {"rest_of": "nowhere"}, "rest_of=nowhere: no such file"),
        ("import", {"to": "run"}, "to=run: exists already"),
        (
            "train",
            {"init_from": "untrained"},
            "init_from: untrained: there is no checkpoint: the run ended before its first one",
        ),
        ("build", {"input": "file"}, "input=file: is a file, not a folder of videos"),
        ("build", {"input": "empty", "manifest": "nowhere.csv"}, "manifest=nowhere.csv: no such file"),
        ("build", {"input": "moving_digits", "manifest": "file"}, "manifest=file: input=moving_digits has captions of"),
        ("build", {"input": "empty", "output": "file/x"}, "output=file/x: can't be written to"),
        ("curate", {"input": "empty", "work": "file/x"}, "work=file/x: can't be written to"),
        ("index", {"input": "file"}, "input=file: is a file; give a folder of tars"),
        ("show", {"input": "nowhere"}, "nowhere: no such folder of shards"),
        ("show", {"input": "shards", "output": "empty"}, "output=empty: is a folder; give a file"),
        ("verify", {"input": "file"}, "file"),
    ],
    ids=str,
)
def test_files_that_are_not_as_they_must_be_are_told_at_once(
    folder: Path, command: str, values: dict[str, Any], message: str
) -> None:
    usual = {"sample": {"checkpoint": "run"}, "evaluate": {"checkpoint": "run"}, "ema": {"checkpoint": "run"}}
    usual["export"] = {"checkpoint": "run", "to": "new"}
    before = sorted(folder.rglob("*"))
    options = told(command, **{**usual.get(command, {}), **values})
    with pytest.raises(ValueError, match=r".") as refused:
        options.check_paths()
    assert str(refused.value).startswith(message)
    assert sorted(folder.rglob("*")) == before


def test_what_is_there_passes(folder: Path) -> None:
    told("sample", checkpoint="run", image="file", prompts_file="file", output="a/new/folder").check_paths()
    told("sample", checkpoint="run/checkpoints/step=00000003").check_paths()
    told("export", checkpoint="run", to="empty").check_paths()
    told("train", data_path="shards", init_from="run").check_paths()
    told("train", data_path="s3://bucket/set").check_paths()
    assert not Path("a").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"input": "file"}, "input=file: say what to do with it: task=extend, interpolate or superres"),
        ({"task": "extend"}, "task=extend: needs a video, input=FILE"),
        ({"input_fps": 4}, "input_fps=4.0: there is no input"),
        ({"prompts": "a", "prompts_file": "file"}, "prompts_file: give either prompts or prompts_file, not both"),
        ({"device": "meta"}, "device=meta: must be auto, or a device such as cpu, cuda or cuda:1"),
        ({"device": "CPU 0"}, "device=CPU 0: must be auto, or a device such as cpu, cuda or cuda:1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        told("sample", **values)
    assert str(refused.value) == message


def test_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="device=abacus: "):
        told("sample", checkpoint="run", device="abacus").check_machine()
    assert told("sample", checkpoint="run", device="cpu").find_device() == CPU


def test_videos_that_memory_can_not_hold_are_refused_with_what_they_need(folder: Path) -> None:
    """By arithmetic: 3 bytes a pixel of each video, kept twice, and 4 bytes a number while a batch is decoded."""
    told("sample", checkpoint="run", device="cpu").check_machine()
    with pytest.raises(ConfigError) as refused:
        told("sample", checkpoint="run", device="cpu", num_frames=1000, width=100_000, height=100_000).check_machine()
    need = 3 * 1000 * 100_000**2 * 4 / GIB
    assert (
        f"num_frames=1000 height=100000 width=100000 batch_size=1: the pixels of a batch need {need:,.1f} GiB"
        in str(refused.value)
    )


def test_many_videos_need_what_all_of_them_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "host_bytes", lambda: 2 * GIB)
    video = 3 * 16 * 64 * 64
    most = 2 * GIB // (2 * video) - 4
    check_memory(16, 64, 64, batch_size=1, num_videos=most, on=CPU)
    with pytest.raises(
        ConfigError, match=r"videos need 4\.0 GiB, and a batch of them 0\.0 GiB, but this machine has 2"
    ):
        check_memory(16, 64, 64, batch_size=1, num_videos=2 * most, on=CPU)
