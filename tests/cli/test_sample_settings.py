"""``vdm sample`` records its settings, and repeats what it recorded."""

import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.cli.calling import frames_of, names_in
from tests.cli.conftest import RunVdm, Sample
from tests.data_pipelines.videos import gray_frames, write_h264
from vdm.cli.sample_folder import begin_call, results_in

CALLS = {
    "prompts": [
        "prompts=[a dog,a cat]",
        "num_videos=2",
        "guidance_scale=3",
        "seed=4",
        "batch_size=3",
        "labels=[zero,2]",
    ],
    "image": ["image=first.png", "prompts=a ${dog} it's", "sampler=heun", "guidance=interval", "ema=false"],
    "prompts from a file": ["prompts_file=prompts.txt", "num_frames=7", "overlap=1", "fps=3", "method=replacement"],
    "extend": ["task=extend", "input=film.mp4", "method=clean_frames", "input_frames=3"],
    "interpolate": ["task=interpolate", "input=film.mp4", "input_frames=3", "every=3"],
    "guide": ["guide=RUN", "guidance_scale=2"],
}
HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"settings_format": 2}, "settings_format=2: written by another version of vdm; this one reads 1"),
    ({"settings_format": None}, "no settings of vdm sample: settings_format is missing"),
    ({"options": 3}, "options=3 is not allowed"),
    ({"read": {"checkpoint": 3}}, "read.checkpoint=3 is not allowed"),
    ({"made": {"first": -1}}, "made.first=-1 is not allowed"),
]
HOSTILE_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"output": "/tmp/there"}, "output: settings don't decide that; say it on the command line"),
    ({"overwrite": True}, "overwrite: settings don't decide that"),
    ({"device": "cuda"}, "device: settings don't decide that"),
    ({"allow_own_code": True}, "allow_own_code: settings don't decide that"),
    ({"settings": "other.json"}, "settings: settings don't decide that"),
    ({"hydra": {"run": {"dir": "/tmp/there"}}}, "hydra: "),
    ({"sampler": {"_target_": "os.system", "command": "touch made"}}, "sampler._target_"),
    ({"guidance": {"_target_": "vdm.files.write_file", "path": "made"}}, "guidance._target_"),
    ({"sampler": "${oc.env:HOME}"}, "sampler='${oc.env:HOME}': must be a mapping"),
    ({"sampler": {"_target_": "vdm.diffusion.samplers.ddim.DDIM", "num_steps": "${oc.env:HOME}"}}, "sampler.num_steps"),
    ({"sampelr": {}}, "sampelr: "),
    ({"seed": "abc"}, "seed=abc: must be a whole number"),
    ({"seed": True}, "seed=true: must be a whole number"),
    ({"num_frames": 10**9}, "num_frames=1000000000"),
    ({"prompts": [["a"]]}, "prompts"),
    ({"seed": "${oc.env:HOME}"}, "seed=${oc.env:HOME}: must be a whole number"),
    ({"checkpoint": "/nowhere"}, "/nowhere: not a run"),
    ({"checkpoint": ["a"]}, "checkpoint"),
    ({"checkpoint": None}, "checkpoint"),
]


def videos(folder: Path) -> list[np.ndarray]:
    return [frames_of(path) for path in sorted(folder.glob("0*.mp4"))]


def comment(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        return json.loads(container.metadata["comment"])


@pytest.mark.parametrize("name", CALLS)
def test_settings_make_the_same_videos_bit_for_bit(sample: Sample, trained: Path, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (50, 70), "red").save(tmp_path / "first.png")
    (tmp_path / "prompts.txt").write_text("a dog\n7\n")
    write_h264(tmp_path / "film.mp4", gray_frames(9))
    sample(*(word.replace("RUN", str(trained)) for word in CALLS[name]), "output=first")
    (tmp_path / "prompts.txt").unlink()
    sample("settings=first/settings.json", "output=again", "device=cpu", checkpoint=None)
    one = sorted((tmp_path / "first").glob("0*.mp4"))[0]
    sample(f"settings={one}", "output=from_mp4", "device=cpu", checkpoint=None)

    expected = videos(tmp_path / "first")
    for folder in ("again", "from_mp4"):
        assert names_in(tmp_path / folder) == names_in(tmp_path / "first")
        assert all((a == b).all() for a, b in zip(videos(tmp_path / folder), expected, strict=True))
        pictures = (np.asarray(Image.open(tmp_path / f / "grid.png")) for f in ("first", folder))
        assert np.array_equal(*pictures)
        was, now = (json.loads((tmp_path / f / "settings.json").read_text()) for f in ("first", folder))
        assert (was["options"], was["read"]) == (now["options"], now["read"])


def test_settings_say_what_decided_the_videos(sample: Sample, trained: Path, tmp_path: Path) -> None:
    sample("prompts=[a dog,a cat]", "guidance_scale=3", "output=out")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())

    told = {"seed": 0, "guidance_scale": 3.0, "prompts": ["a dog", "a cat"], "num_frames": 4, "overlap": 2, "ema": True}
    assert {key: settings["options"][key] for key in told} == told
    assert settings["options"]["sampler"]["num_steps"] == 2
    assert settings["options"]["checkpoint"] == str(trained / "checkpoints" / "step=00000001")
    assert settings["read"]["checkpoint"]["step"] == 1
    assert settings["made"]["videos"] == ["0000-a-dog.mp4", "0001-a-cat.mp4"]
    assert settings["code"].keys() == {"vdm", "git", "torch", "python"}
    assert {"output", "device", "allow_own_code", "overwrite"}.isdisjoint(settings["options"])
    assert comment(tmp_path / "out" / "0001-a-cat.mp4") == comment(tmp_path / "out" / "grid.mp4") == settings
    with av.open(str(tmp_path / "out" / "0001-a-cat.mp4")) as container:
        assert container.metadata["title"] == "a cat"


def test_command_line_wins_over_settings(sample: Sample, tmp_path: Path) -> None:
    sample("prompts=[a dog,a cat]", "guidance_scale=3", "output=first", "sampler.eta=0.5")
    (tmp_path / "other.txt").write_text("a cow")
    changes = ["seed=3", "guidance_scale=5", "sampler.num_steps=1", "prompts_file=other.txt", "num_frames=3"]
    sample("settings=first/settings.json", *changes, "output=second", "device=cpu", checkpoint=None)
    options = json.loads((tmp_path / "second" / "settings.json").read_text())["options"]

    assert (options["seed"], options["prompts"], options["num_frames"]) == (3, ["a cow"], 3)
    assert (options["guidance_scale"], options["guidance"]["scale"]) == (5, 5)
    assert (options["sampler"]["num_steps"], options["sampler"]["eta"]) == (1, 0.5)

    sample("settings=second/settings.json", "guidance.scale=4", "sampler=euler", "output=third", checkpoint=None)
    options = json.loads((tmp_path / "third" / "settings.json").read_text())["options"]
    assert (options["guidance_scale"], options["guidance"]["scale"]) == (4, 4)
    assert options["sampler"]["_target_"].endswith("Euler")


def test_another_task_leaves_the_former_one_s_input_alone(sample: Sample, tmp_path: Path) -> None:
    write_h264(tmp_path / "film.mp4", gray_frames(9))
    sample("task=extend", "input=film.mp4", "method=replacement", "output=first")
    sample("settings=first/settings.json", "task=null", "output=second", "device=cpu", checkpoint=None)
    assert json.loads((tmp_path / "second" / "settings.json").read_text())["options"]["input"] is None


def test_settings_too_long_for_an_mp4_are_named_there(tmp_path: Path) -> None:
    files = begin_call(tmp_path, ["a dog"], {"options": {"prompts": ["a" * 100_000]}})
    assert json.loads(files.comment) == {"settings_format": 1, "settings_in": "settings.json"}
    assert results_in(tmp_path) == [files.settings]


def test_another_checkpoint_or_file_at_the_same_place_is_warned_of(
    sample: Sample, run_vdm: RunVdm, tmp_path: Path
) -> None:
    write_h264(tmp_path / "film.mp4", gray_frames(9))
    sample("task=extend", "input=film.mp4", "method=replacement", "output=out")
    write_h264(tmp_path / "film.mp4", gray_frames(8))
    path = tmp_path / "out" / "settings.json"
    settings = json.loads(path.read_text())
    settings["read"]["checkpoint"]["checksum"] = "0" * 32
    path.write_text(json.dumps(settings))
    _, said = run_vdm("sample", "settings=out/settings.json", "output=again", "device=cpu")
    warnings = [line for line in said.splitlines() if "is another than when" in line]
    assert [line.split("=")[0] for line in warnings] == ["WARNING: checkpoint", "WARNING: input"]
    sample("settings=out/settings.json", "seed=1", "output=again", "device=cpu", checkpoint=None)


@pytest.mark.parametrize(("changes", "message"), HOSTILE, ids=str)
def test_what_settings_may_not_say_is_one_line(
    run_vdm: RunVdm, trained: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    content = {"settings_format": 1, "options": {"checkpoint": str(trained)}, **changes}
    (tmp_path / "settings.json").write_text(json.dumps(content))
    code, said = run_vdm("sample", "settings=settings.json", "output=out", "device=cpu")
    assert (code, said.count("\n")) == (2, 1), said
    assert message in said
    assert said.startswith("settings=settings.json: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "message"), HOSTILE_OPTIONS, ids=str)
def test_what_settings_may_not_decide_is_one_line(
    run_vdm: RunVdm, trained: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    content = {"settings_format": 1, "options": {"checkpoint": str(trained), **options}}
    (tmp_path / "settings.json").write_text(json.dumps(content))
    before = names_in(tmp_path)
    code, said = run_vdm("sample", "settings=settings.json", "output=out", "device=cpu")
    assert (code, said.count("\n")) == (2, 1), said
    assert message in said
    assert names_in(tmp_path) == before


def test_texts_of_settings_mean_nothing_else(sample: Sample, trained: Path, tmp_path: Path) -> None:
    prompts = ["${oc.env:HOME}", "\\${seed}", "it's 7"]
    options = {"checkpoint": str(trained), "prompts": prompts, "num_frames": 2}
    (tmp_path / "settings.json").write_text(json.dumps({"settings_format": 1, "options": options}))
    sample("settings=settings.json", "output=out", "sampler.num_steps=1", "device=cpu", checkpoint=None)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["options"]["prompts"] == prompts


@pytest.mark.parametrize("name", ["nowhere.json", "film.mp4", "text.json", "text.mp4", "list.json", "a_folder"])
def test_what_is_no_file_with_settings_is_one_line(run_vdm: RunVdm, tmp_path: Path, name: str) -> None:
    write_h264(tmp_path / "film.mp4", gray_frames(2))
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "a_folder").mkdir()
    for more in ([], ["motion_bucket_id=3"], ["checkpoint=nowhere"]):
        code, said = run_vdm("sample", f"settings={name}", "output=out", *more)
        assert (code, said.count("\n")) == (2, 1), said
        assert re.match(rf"settings={name}: |nowhere: not a run", said), said
