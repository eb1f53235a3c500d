"""A trained model called from Python: as the command does it, and what Python adds."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import vdm
from tests.assembly.small_model import save_run, small_model
from tests.cli.conftest import RunVdm, run_vdm, trained
from tests.extending.brightness import Emphasis
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RecordedClip
from vdm.cli import sample
from vdm.diffusion.guidance import Extrapolation
from vdm.diffusion.observations import Replacement
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.probability_flow import ProbabilityFlow
from vdm.generation.pipeline import VideoPipeline
from vdm.generation.tasks import extension

__all__ = ["run_vdm", "trained"]  # fixtures

CLIP = RecordedClip(num_frames=4, height=8, width=12, fps=5.0, label_names=("zero", "one", "two"))


@pytest.fixture
def pipe() -> VideoPipeline:
    return VideoPipeline(small_model(), CLIP)


def made_by_command(run_vdm: RunVdm, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Tensor:
    """Return what ``vdm sample`` makes, before it is written to files."""
    generate, made = sample.generate, []
    monkeypatch.setattr(sample, "generate", lambda *args, **more: made.append(generate(*args, **more)) or made[0])
    code, err = run_vdm("sample", "device=cpu", "output=out", *overrides)
    assert code == 0, err
    return made[0]


def test_the_run_s_own_settings_give_the_videos_of_the_command(
    trained: Path, run_vdm: RunVdm, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made_by_command(run_vdm, monkeypatch, f"checkpoint={trained}", "prompts=a dog runs")
    made = vdm.load_model(trained)("a dog runs", progress=False)
    assert torch.equal(made.videos, expected)
    assert (made.fps, made.prompts) == (8, ("a dog runs",))


def test_chosen_settings_give_the_videos_of_the_command(
    trained: Path, run_vdm: RunVdm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    picture = tmp_path / "first.png"
    Image.linear_gradient("L").save(picture)
    expected = made_by_command(
        run_vdm,
        monkeypatch,
        *(f"checkpoint={trained}", f"guide={trained}", f"image={picture}", 'prompts=["a red dog","a blue cat"]'),
        *("labels=[zero,2]", "num_videos=2", "num_frames=7", "height=20", "width=24", "overlap=1"),
        *("guidance_scale=3", "sampler=ddpm", "sampler.num_steps=3", "seed=5", "batch_size=3", "method=replacement"),
    )
    made = vdm.load_model(trained, guide=trained)(
        ["a red dog", "a blue cat"],
        labels=["zero", 2],
        image=picture,
        num_videos=2,
        num_frames=7,
        height=20,
        width=24,
        overlap=1,
        guidance_scale=3,
        sampler=DDPM(gamma=0.3),  # as in conf/sampler/ddpm.yaml
        num_steps=3,
        seed=5,
        batch_size=3,
        method=Replacement(),
        progress=False,
    )
    assert made.videos.shape == (4, 3, 7, 20, 24)
    assert torch.equal(made.videos, expected)


def test_noise_of_one_s_own_is_what_videos_start_from(pipe: VideoPipeline) -> None:
    noise = torch.randn(3, 3, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    captions = ["a dog", "a cat", ""]
    made = pipe(captions, noise=noise, seed=3, batch_size=2, progress=False)
    torch.testing.assert_close(made.videos, pipe.model(noise, captions), rtol=0, atol=1)
    assert torch.equal(made.videos, pipe(captions, noise=noise, seed=4, batch_size=2, progress=False).videos)


def test_latents_are_what_videos_are_decoded_from(pipe: VideoPipeline) -> None:
    latents = pipe(["a", "b"], num_frames=6, output="latents", progress=False).latents
    assert torch.equal(pipe.model.encoder.decode(latents), pipe(["a", "b"], num_frames=6, progress=False).videos)


def test_a_video_goes_on_from_given_frames(pipe: VideoPipeline) -> None:
    begun = pipe("a dog", progress=False).videos[0]
    longer = pipe("a dog", num_frames=6, known=extension(pipe.model, begun, 6), progress=False).videos[0]
    assert torch.equal(longer[:, :4], begun)
    assert not torch.equal(longer[:, 5], begun[:, 3])


def test_prompts_of_the_model_may_be_given(pipe: VideoPipeline) -> None:
    asked = pipe.model.prompts(["a dog", "a cat"], [1, 2])
    assert torch.equal(
        pipe(asked, progress=False).videos, pipe(["a dog", "a cat"], labels=["one", "two"], progress=False).videos
    )
    with pytest.raises(ValueError, match=r"^prompts: have labels, images and number of videos in themselves"):
        pipe(asked, labels=1)


def test_a_first_frame_is_a_file_a_picture_or_a_tensor(pipe: VideoPipeline, tmp_path: Path) -> None:
    frame = torch.arange(3 * 96, dtype=torch.uint8).reshape(3, 8, 12)
    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
    picture.save(tmp_path / "frame.png")
    videos = [
        pipe(["a", "b"], image=image, progress=False).videos
        for image in (frame, picture, str(tmp_path / "frame.png"), [frame, picture])
    ]
    assert all(torch.equal(video, videos[0]) for video in videos)
    assert not torch.equal(pipe(["a", "b"], image=255 - frame, progress=False).videos, videos[0])


def test_a_call_leaves_the_model_as_it_was(pipe: VideoPipeline) -> None:
    before = pipe.model.sampler, pipe.model.guidance
    made = pipe(
        "a", sampler=DDPM(7), num_steps=2, guidance=Extrapolation(rescale=0.5), guidance_scale=4, progress=False
    )
    assert made.settings["sampler"] == repr(DDPM(2))
    assert made.settings["guidance"] == repr(Extrapolation(4.0, rescale=0.5))
    with pytest.raises(ValueError, match=r"^num_steps=2: ProbabilityFlow has no num_steps; give another sampler$"):
        pipe("a", sampler=ProbabilityFlow(), num_steps=2)
    with pytest.raises(ValueError, match=r"^labels=nine"):
        pipe("a", labels="nine", num_steps=1)
    assert (pipe.model.sampler, pipe.model.guidance) == before


def test_options_of_the_model_hold_for_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"_target_": "tests.extending.brightness.BrightnessConditioner"}
    pipe, told = VideoPipeline(small_model(model__conditioner=own), CLIP), []
    sampled = VideoDiffusionModel.sample

    def recorded(model: VideoDiffusionModel, *args: Any, **more: Any) -> Tensor:
        told.append(model.conditioner.options)
        return sampled(model, *args, **more)

    monkeypatch.setattr(VideoDiffusionModel, "sample", recorded)
    pipe(emphasis=2.0, progress=False)
    assert (told, pipe.model.conditioner.options) == ([Emphasis(2.0)], Emphasis())
    with pytest.raises(ValueError, match=r"^emphasis: 5\.0 is not allowed: must be at most 4$"):
        pipe(emphasis=5.0)
    with pytest.raises(ValueError, match=r"^emfasis: no such option: did you mean 'emphasis'\?$"):
        pipe(emfasis=2.0)


def test_steps_are_shown_unless_told_otherwise(pipe: VideoPipeline, capfd: pytest.CaptureFixture[str]) -> None:
    pipe("a", progress=False)
    assert capfd.readouterr().err == ""
    pipe("a", num_frames=7, num_steps=2)
    assert "6/6" in capfd.readouterr().err


WRONG = {
    "num_frames='16'": "num_frames: '16' is not allowed: must be a number, not text in quotes",
    "height=30": "height=30: the network needs latents of a multiple of 4, not 30",
    "num_steps=0": "num_steps: 0 is not allowed: must be at least 1",
    "seed=-1": "seed: -1 is not allowed: must be at least 0",
    "output='latent'": "output: 'latent' is not allowed: must be 'videos' or 'latents'",
    "progress=1": "progress: 1 is not allowed: must be true or false",
    "heigth=16": "heigth: no such option: did you mean 'height'?",
    "prompts=3": "prompts: must be a caption, a list of captions, or Prompts, not int",
    "prompts=[]": "prompts=[]: must be a list of one or more texts",
    "labels=1.5": "labels: must be a class by its index or name, or a list, not float",
    "labels=[1, 2], prompts='a'": "labels=[1, 2]: 2 labels for 1 prompts",
    "sampler='unipc'": "sampler='unipc': must be an object, such as vdm.diffusion.samplers.ddim.DDIM(num_steps=20)",
    "guidance=3": "guidance=3: must be an object, such as vdm.diffusion.guidance.Extrapolation(3.0)",
    "method='replacement'": "method='replacement': must be an object of vdm.diffusion.observations, such as",
    "known=3": "known: must be what a function of vdm.generation.tasks returns",
    "noise=3": "noise: must be a tensor of floating-point numbers, in the shape of the latents",
    "noise=torch.zeros(1, 3, 4, 4, 4)": "noise: has the shape (1, 3, 4, 4, 4), but 1 videos of 4 frames of 8x12 start",
    "noise=torch.zeros(1, 3, 9, 8, 12), num_frames=9": "noise: can't be given for videos in 4 blocks",
    "image=3": "image: must be a file, a PIL picture or a tensor of uint8, or a list of these, not int",
    "image=[]": "image: must be a picture, or a list of one or more",
    "image=torch.zeros(3, 8, 12)": "image: must be a file, a PIL picture or a tensor of uint8, or a list of these, not",
    "image=torch.zeros(3, 8, 8).byte()": "image: has the shape (3, 8, 8), but the videos' frames are (3, 8, 12)",
    "image=['no.png'] * 3, prompts=['a', 'b']": "image=no.png: no such file",
}


def test_wrong_calls_are_one_line_each(tmp_path: Path) -> None:
    """In a process of its own, since the tests' own checks of annotations would come first."""
    calls = ",\n".join(f"({key!r}, lambda: pipe({key}))" for key in WRONG)
    script = tmp_path / "wrong.py"
    script.write_text(
        "import torch\nfrom tests.assembly.small_model import small_model\n"
        "from vdm.checkpoints.run_config import RecordedClip\nfrom vdm.generation.pipeline import VideoPipeline\n"
        "pipe = VideoPipeline(small_model(), RecordedClip(4, 8, 12, 5.0))\n"
        f"for key, call in [{calls}]:\n"
        "    try:\n        call()\n    except ValueError as error:\n        print(error)\n"
        "    else:\n        print('went through:', key)\n"
    )
    command = [sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=_environment(), check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(WRONG), done.stdout + done.stderr
    for line, message in zip(lines, WRONG.values(), strict=True):
        assert line.startswith(message), line


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_run_that_does_not_say_what_its_clips_are_is_refused(tmp_path: Path) -> None:
    save_run(tmp_path / "run", small_model())
    with pytest.raises(ValueError, match=r"config\.yaml: clip is missing, which a run records when training begins$"):
        vdm.load_model(tmp_path / "run")


def test_it_moves_with_its_guide(pipe: VideoPipeline) -> None:
    pipe.model.autoguidance_model = small_model()
    assert pipe.to("meta") is pipe
    assert {pipe.device.type, pipe.model.autoguidance_model.device.type} == {"meta"}
    assert replace(pipe, model=small_model()).device.type == "cpu"


def test_the_default_sampler_takes_another_number_of_steps(pipe: VideoPipeline) -> None:
    assert torch.equal(pipe("a", num_steps=5, progress=False).videos, pipe("a", sampler=DDIM(5), progress=False).videos)
