"""``vdm sample`` on a small real run, called as the command calls it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from tests.cli.calling import composed, frames_of, sampled
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_config import RunConfig
from vdm.cli import sample
from vdm.cli.options.sample import SampleOptions
from vdm.config import ConfigError
from vdm.config.options import parse
from vdm.diffusion.guidance import Extrapolation


def test_each_prompt_gives_a_video_and_all_a_grid(trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "first.png"
    Image.new("RGB", (50, 70), "red").save(picture)
    prompts = "prompts=[a red dog,a blue cat]"
    options = [f"checkpoint={trained}", prompts, f"output={tmp_path / 'out'}", f"image={picture}", "labels=[zero,2]"]
    sample.run(composed("sample", *options, "num_videos=2", "num_frames=3", "sampler=ddpm", "sampler.num_steps=2"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    videos = {"0000-a-red-dog.mp4", "0001-a-red-dog.mp4", "0002-a-blue-cat.mp4", "0003-a-blue-cat.mp4"}
    assert names == videos | {"grid.mp4", "grid.gif", "grid.png", "settings.json"}
    assert frames_of(tmp_path / "out" / "0000-a-red-dog.mp4").shape == (3, 16, 32, 3)


def test_videos_made_before_an_interruption_are_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_batch, calls = VideoDiffusionModel.sample, iter([False, True])

    def interrupted(*args: Any, **kwargs: Any) -> Tensor:
        if next(calls):
            raise KeyboardInterrupt
        return sample_batch(*args, **kwargs)

    monkeypatch.setattr(VideoDiffusionModel, "sample", interrupted)
    options = [f"checkpoint={trained}", "prompts=[one,two]", f"output={tmp_path}", "batch_size=1"]
    with pytest.raises(KeyboardInterrupt):
        sample.run(composed("sample", *options, "sampler.num_steps=1"))
    assert {path.name for path in tmp_path.iterdir()} == {"0000-one.mp4", "settings.json"}


def test_prompts_come_from_a_file_too(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\n two \n")
    options = [f"checkpoint={trained}", f"prompts_file={file}", f"output={tmp_path / 'out'}", "sampler.num_steps=1"]
    sample.run(composed("sample", *options))
    assert {path.name for path in (tmp_path / "out").glob("0*")} == {"0000-one.mp4", "0001-two.mp4"}


def test_samples_are_guided_by_another_run(trained: Path, tmp_path: Path) -> None:
    """By the same one, which makes no difference: the guided prediction is away from itself."""
    guided = sampled(trained, tmp_path / "a", "prompts=[a dog]", f"guide={trained}", "guidance_scale=3")
    plain = sampled(trained, tmp_path / "b", "prompts=[a dog]", "guidance_scale=1")
    assert np.abs(guided[0].astype(int) - plain[0]).max() <= 1


def test_sampler_of_unknown_number_of_steps_has_a_bar_without_end(trained: Path, tmp_path: Path) -> None:
    options = [f"checkpoint={trained}", f"output={tmp_path}", "sampler=probability_flow", "sampler.solver.rtol=0.1"]
    sample.run(composed("sample", *options, "sampler.solver.atol=0.1"))
    assert len(frames_of(tmp_path / "0000.mp4")) == 4


@pytest.mark.parametrize("guidance", ["interval", "rescaled", "linear_over_frames"])
def test_scale_of_every_guidance_is_that_of_the_command_line(trained: Path, guidance: str) -> None:
    config = composed("sample", f"checkpoint={trained}", f"guidance={guidance}", "guidance_scale=7", "device=cpu")
    plain: Any = OmegaConf.to_container(config)
    model = sample.load_for_sampling(latest_checkpoint(trained), parse(SampleOptions, plain), RunConfig.read(trained))
    assert isinstance(model.guidance, Extrapolation)
    assert model.guidance.scale == 7
    assert model.guidance != Extrapolation(7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("checkpoint=nowhere", "nowhere"),
        ("height=30", "height=30: the network needs latents of a multiple of 4"),
        ("num_frames=0", "num_frames=0"),
        ("num_videos=0", "num_videos=0"),
        ("labels=nine", "labels=nine: no such class; there are zero, one, two"),
        ("prompts=[one] labels=[0,1]", "2 labels for 1 prompts"),
        ("image=nowhere.png", "image=nowhere.png: no such file"),
        ("prompts_file=nowhere.txt", "prompts_file"),
        ("device=abacus", "device=abacus"),
        ("sampler.eta=2", "sampler.eta: 2 is not allowed: must be at most 1"),
        ("guidance.scale=much", "guidance.scale"),
    ],
)
def test_bad_request_is_one_line(trained: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        sample.run(composed("sample", f"checkpoint={trained}", f"output={tmp_path}", *override.split()))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("fps=fast", "fps=fast: must be a number above 0"),
        ("fps=0", "fps=0: must be a number above 0"),
        ("output={file}", "output={file}: can't be written to: "),
        ("output={file}/x", "output={file}/x: can't be written to: "),
    ],
)
def test_what_videos_can_not_be_written_with_is_refused_before_they_are_made(
    trained: Path, tmp_path: Path, option: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "generate", lambda *args, **more: pytest.fail("videos are made"))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=f"^{re.escape(message.format(file=file))}"):
        sample.run(composed("sample", f"checkpoint={trained}", f"output={tmp_path / 'out'}", option.format(file=file)))


def test_levels_of_frames_that_training_never_had_are_warned_of(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = [f"checkpoint={trained}", "prompts=[one]", f"output={tmp_path}", "num_frames=2"]
    sample.run(composed("sample", *options, "sampler=staggered", "sampler.sampler.num_steps=1"))
    known = ["task=extend", f"input={tmp_path / '0000-one.mp4'}", "input_frames=1", "sampler.num_steps=1"]
    sample.run(composed("sample", *options, *known, "method=clean_frames"))
    blocks = ["block_frames=2", "overlap=1", "sampler.num_steps=1"]  # which are told of the frames before
    sample.run(composed("sample", *options[:-1], "num_frames=3", *blocks, "method=clean_frames"))
    messages = [record.getMessage() for record in caplog.records if record.name == "vdm.cli.sample"]
    assert [message.split(": the model was not trained ")[0] for message in messages] == [
        "sampler=staggered",
        "method=clean_frames",
        "method=clean_frames",
    ]
