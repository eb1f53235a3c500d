"""Parts of ``vdm demo``: command lines, uploads, previews, history."""

import base64
import io
import json
import os
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from tests.data_pipelines.videos import write_video
from vdm.cli.demo import preview as previews
from vdm.cli.demo import reuse
from vdm.cli.demo.calls import AS_IN_RUN, Form, SharedOptions, Taken, shell_line, words_of
from vdm.cli.demo.cards import Published, history_html, results_html
from vdm.cli.demo.history import made_before
from vdm.cli.demo.jobs import Result
from vdm.cli.demo.models import DemoModel, names_of
from vdm.cli.demo.preview import Preview, animation, decoded_small
from vdm.cli.demo.uploads import UploadLimits
from vdm.cli.options.sample import SampleOptions
from vdm.cli.overrides import readable
from vdm.config.conf_dir import conf_dir
from vdm.models.autoencoder import Compression, PixelAutoencoder

EVERYTHING = Taken(True, True, ("zero", "one, two"), {"motion_bucket_id": 127}, ("ddim", "unipc"))
NOTHING = Taken(False, False, (), {}, ("ddim", "unipc"))
FULL = Form("a dog", "blur", "one, two", Path("a.png"), None, None, 3, None, "unipc", 20, 3.5, 7, 8, 16, 32)


RUN_SAMPLER = {"_target_": "vdm.diffusion.samplers.ddim.DDIM", "num_steps": 5, "eta": 0.0}


def test_a_command_has_what_the_model_takes() -> None:
    of_model = Form(**{**vars(FULL), "of_model": {"motion_bucket_id": 100.0, "fps": 7.0}})
    assert words_of(of_model, EVERYTHING, ["checkpoint=run"]) == [
        *("checkpoint=run", "prompts='a dog'", "negative='blur'", "labels=1", "image=a.png", "sampler=unipc"),
        *("sampler.num_steps=20", "guidance_scale=3.5", "seed=7", "num_frames=8", "height=16", "width=32"),
        *("motion_bucket_id=100", "fps=7"),
    ]
    assert words_of(of_model, NOTHING, [])[0] == "sampler=unipc"
    assert words_of(Form(), EVERYTHING, []) == ["seed=0"]


def test_an_input_belongs_to_a_task() -> None:
    film, picture = Path("film.mp4"), Path("a.png")
    extended = Form(task="extend", input=film, image=picture, every=2, method="replacement")
    assert words_of(extended, EVERYTHING, []) == ["task=extend", "input=film.mp4", "method=replacement", "seed=0"]
    between = Form(task="interpolate", input=film, every=3)
    assert words_of(between, EVERYTHING, []) == ["task=interpolate", "input=film.mp4", "every=3", "seed=0"]
    assert words_of(Form(input=film, every=3), EVERYTHING, []) == ["seed=0"]


def test_options_of_the_page_are_in_each_command() -> None:
    run = Path("runs/a b/checkpoints/step=1")
    assert SharedOptions().words(run) == ["checkpoint='runs/a b/checkpoints/step=1'"]
    shared = SharedOptions("slow", "cuda:1", True)
    assert shared.words(Path("r/step=1"))[1:] == ["ema='slow'", "device=cuda:1", "allow_own_code=true"]
    assert SharedOptions(ema=False).words(Path("r"))[1:] == ["ema=false"]


@pytest.mark.parametrize("form", [Form(label="nine"), Form(sampler="../ddim"), Form(sampler="ddim,unipc")])
def test_a_choice_that_was_not_offered_is_refused(form: Form) -> None:
    with pytest.raises(ValueError, match="no such c"):
        words_of(form, EVERYTHING, [])


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30))
def test_every_prompt_arrives_as_it_was_typed(prompt: str) -> None:
    """Through a shell's reading of the printed command, and Hydra's of the words."""
    typed = " ".join(prompt.split())
    words = words_of(Form(prompt), EVERYTHING, ["checkpoint=run"])
    line = shell_line(words)
    printed = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + line.removeprefix("vdm sample ")], capture_output=True, check=True
    )
    assert printed.stdout.decode().split("\0")[:-1] == words
    found = [word for word in readable(words, SampleOptions, conf_dir()) if word.startswith("prompts=")]
    if not typed:
        assert found == []
        return
    (parsed,) = OverridesParser.create().parse_overrides(found)
    config = OmegaConf.create({"prompts": parsed.value()})
    assert OmegaConf.to_container(config, resolve=True) == {"prompts": typed}


@pytest.mark.parametrize(
    ("checkpoints", "names"),
    [
        (["runs/a/step=1500"], ["a"]),
        (["runs/a/step=1", "runs/b/step=2"], ["a", "b"]),
        (["one/run/step=1", "two/run/step=1"], ["one/run", "two/run"]),
        (["runs/a/step=0001", "runs/a/step=1500"], ["a, step 1", "a, step 1,500"]),
        (["runs/a/step=1", "runs/a/step=1"], ["a, step 1 (1)", "a, step 1 (2)"]),
        (["x/run/step=1", "x/run/step=2", "y/run/step=1"], ["x/run, step 1", "x/run, step 2", "y/run, step 1"]),
    ],
)
def test_each_checkpoint_has_a_short_name_of_its_own(checkpoints: list[str], names: list[str]) -> None:
    assert names_of([(Path(one).parent, Path(one)) for one in checkpoints]) == names


NAMES = (
    "prompt",
    "negative",
    "label",
    "image",
    "task",
    "input",
    "method",
    "every",
    "sampler",
    "num_steps",
    "seed",
    "fps",
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {
                "prompts": ["a dog", "a cat"],
                "negative": "blur",
                "labels": 1,
                "seed": 7,
                "fps": 7.5,
                "sampler": RUN_SAMPLER,
            }
            | {"task": "extend", "input": "/etc/passwd", "image": "/etc/passwd", "method": "replacement", "every": 3},
            {"prompt": "a dog", "negative": "blur", "label": "dog", "seed": 7, "fps": "7.5", "num_steps": "5"}
            | {"task": "Extend a video", "method": "replaced in each step (fast)", "every": 3},
        ),
        ({}, {}),
        (
            {
                "prompts": {"a": 1},
                "negative": ["b"],
                "labels": 9,
                "seed": "x",
                "every": [],
                "fps": {},
                "task": {"a": []},
            }
            | {"sampler": "unipc", "method": 3, "num_steps": 9},
            {"num_steps": "9"},
        ),
        ({"labels": "cat", "sampler": {"_target_": ["x"], "num_steps": {}}}, {"label": "cat"}),
    ],
)
def test_settings_of_any_kind_become_values_of_the_form_and_name_no_file(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    monkeypatch.setattr(reuse, "samplers", list)  # without Hydra
    model = MagicMock(spec=DemoModel, classes=["cat", "dog"])
    model.trained = SimpleNamespace(parts={"sampler": RUN_SAMPLER | {"num_steps": 50}})
    empty = {"prompt": "", "negative": "", "label": "any class", "image": None, "task": "A new video", "input": None}
    empty |= {"method": "guided towards them", "every": 2, "sampler": AS_IN_RUN, "num_steps": "", "seed": 0, "fps": ""}
    assert reuse.form_values(options, NAMES, [model]) == empty | expected


def test_previews_take_a_tenth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    shown: list[float] = []

    def decode(*_: object) -> torch.Tensor:
        clock[0] += 3.0
        return torch.zeros(1, 3, 2, 8, 8, dtype=torch.uint8)

    monkeypatch.setattr(previews.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(previews, "decoded_small", decode)
    preview = Preview(PixelAutoencoder(), 8, lambda _: shown.append(clock[0]))
    while clock[0] < 300:
        preview(torch.zeros(1, 3, 2, 8, 8))
        clock[0] += 1.0  # a step
    assert 8 <= len(shown) <= 11  # of 3 seconds each


class _Halving(PixelAutoencoder):
    """Stands for an autoencoder whose latents are smaller than pixels."""

    compression = Compression(pixels=8)


def test_latents_are_decoded_at_half_their_size_and_pixels_as_they_are() -> None:
    latents = torch.rand(1, 3, 2, 32, 64) * 2 - 1
    assert decoded_small(_Halving(), latents).shape == (1, 3, 2, 16, 32)
    torch.testing.assert_close(decoded_small(PixelAutoencoder(), latents), PixelAutoencoder().decode(latents))


def test_a_preview_moves_at_the_video_s_speed_and_stays_small() -> None:
    video = torch.randint(0, 255, (3, 100, 400, 640), dtype=torch.uint8)
    content = base64.b64decode(animation(video, 25).removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (320, 200)
        assert 20 <= picture.n_frames <= 32  # type: ignore[attr-defined]
        picture.seek(1)
        picture.load()
        assert picture.info["duration"] == 4 * 40


LIMITS = UploadLimits(max_bytes=1 << 20, max_frames=5)


def test_uploads_are_bounded(tmp_path: Path) -> None:
    frames = [np.zeros((16, 16, 3), np.uint8)] * 6
    long, short = write_video(tmp_path / "long.mkv", frames), write_video(tmp_path / "short.mkv", frames[:5])
    assert LIMITS.video(short).shape[1] == 5
    with pytest.raises(ValueError, match="more than the 5 frames"):
        LIMITS.video(long)
    (tmp_path / "big.png").write_bytes(b"a" * ((1 << 20) + 1))
    with pytest.raises(ValueError, match="more than the 1 MiB"):
        LIMITS.picture(tmp_path / "big.png")


def test_an_upload_is_kept_once_under_a_name_of_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "it's a; file.PNG", tmp_path / "other.png"
    first.write_bytes(b"a")
    second.write_bytes(b"a")
    kept = LIMITS.keep(first, tmp_path / "samples")
    assert kept == LIMITS.keep(second, tmp_path / "samples")
    assert kept.read_bytes() == b"a"
    assert kept.suffix == ".png"
    assert shlex.quote(str(kept)) == str(kept)


def a_call(folder: Path, name: str, options: dict[str, Any], videos: list[str] | None = None) -> Path:
    (folder / name).mkdir(parents=True)
    made = {"first": 0, "videos": ["0000.mp4"] if videos is None else videos}
    content = {"settings_format": 1, "options": options, "made": made}
    (folder / name / "settings.json").write_text(json.dumps(content))
    (folder / name / "0000.mp4").write_bytes(b"a")
    return folder / name


def test_history_shows_the_newest_calls_that_have_a_video(tmp_path: Path) -> None:
    for number, name in enumerate(["0000", "0001", "0002", "0003", "0004"]):
        folder = a_call(tmp_path, name, {"prompts": [f"of {name}"], "seed": number})
        os.utime(folder, (number, number))
    (tmp_path / "0002" / "0000.mp4").unlink()
    (tmp_path / "0003" / "settings.json").write_text("{")
    a_call(tmp_path, "uploads", {})
    assert [made.caption for made in made_before([tmp_path, tmp_path / "nowhere"], 2)] == ["of 0004", "of 0001"]


def test_history_of_a_stranger_s_folder_shows_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    a_call(tmp_path / "samples", "0000", {}, ["../../secret.mp4"])
    linked = a_call(tmp_path / "samples", "0001", {}, ["link.mp4"])
    (linked / "link.mp4").symlink_to(secret)
    a_call(tmp_path / "samples", "0002", {}, [str(secret)])
    (tmp_path / "samples" / "0003").symlink_to(linked)
    assert made_before([tmp_path / "samples"]) == []


def test_texts_from_outside_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'"
    a_call(tmp_path, "0000", {"prompts": [evil], "seed": 0, evil: evil, "height": evil})
    page = history_html(made_before([tmp_path]), Published(tmp_path / "cache"))
    result = Result(evil, evil, evil, "", tmp_path / "0000" / "0000.mp4", None, (evil,), evil)
    page += results_html([result, Result(evil, error=evil)], (16, 16), Published(tmp_path / "cache"))
    assert "<script" not in page
    assert evil.partition(">")[2] not in page
    assert page.count("alert(1)") >= 8


def test_only_copies_of_videos_are_served(tmp_path: Path) -> None:
    video = tmp_path / "0000.mp4"
    video.write_bytes(b"first")
    published = Published(tmp_path / "cache")
    copy = Path(published(video).removeprefix("gradio_api/file="))
    assert copy.is_relative_to(tmp_path / "cache")
    assert copy.read_bytes() == b"first"
    video.write_bytes(b"another")
    os.utime(video, (9, 9))
    assert Path(published(video).removeprefix("gradio_api/file=")).read_bytes() == b"another"
