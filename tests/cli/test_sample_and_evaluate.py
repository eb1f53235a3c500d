"""``vdm sample`` and ``vdm evaluate`` on a small real run, called as the commands call them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from tests.data.shard_sets import write_set
from tests.data_pipelines.videos import write_video
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import load_config, write_config
from vdm.cli import evaluate, sample
from vdm.cli.conf_dir import conf_dir
from vdm.cli.options.sample import SampleOptions
from vdm.cli.run_folder import register_run_folder
from vdm.config import ConfigError
from vdm.config.options import parse
from vdm.diffusion.guidance import Extrapolation
from vdm.evaluation import moving_digits


def composed(command: str, *overrides: str) -> DictConfig:
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, list(overrides))
    OmegaConf.resolve(config)
    return config


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


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


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 6 frames of one colour each, of another size than the run's."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    return write_video(path, [np.full((40, 50, 3), 40 * n, dtype=np.uint8) for n in range(6)], fps=4)


def sampled(trained: Path, folder: Path, *overrides: str) -> list[np.ndarray]:
    """Run ``vdm sample`` and return the videos it wrote."""
    options = [f"checkpoint={trained}", f"output={folder}", "sampler.num_steps=2", *overrides]
    sample.run(composed("sample", *options))
    return [frames_of(path) for path in sorted(folder.glob("0*.mp4"))]


def grays(frames: np.ndarray) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def fps_of(path: Path) -> float:
    with av.open(str(path)) as container:
        return float(container.streams.video[0].average_rate or 0)


def test_video_is_extended_by_any_number_of_frames(trained: Path, film: Path, tmp_path: Path) -> None:
    options = ["task=extend", f"input={film}", "prompts=[a red dog,a blue cat]", "num_videos=2", "num_frames=11"]
    given = ["input_frames=all", "input_fps=4", "overlap=3"]
    videos = sampled(trained, tmp_path, *options, *given, "guidance_scale=2")
    assert [video.shape for video in videos] == [(11, 16, 32, 3)] * 4
    for video in videos:
        assert grays(video[:6]) == pytest.approx([40 * n for n in range(6)], abs=3)
    assert fps_of(tmp_path / "0000-a-red-dog.mp4") == 4


@pytest.mark.parametrize(
    ("overrides", "num_frames"),
    [
        ("task=extend", 4),
        ("task=extend input_frames=1", 4),
        ("task=extend input_frames=3", 5),
        ("task=extend input_frames=all input_fps=4", 8),
        ("task=extend block_frames=6 overlap=1", 6),
        ("task=interpolate", 11),
        ("task=interpolate every=3", 16),
        ("num_frames=7", 7),
    ],
)
def test_number_of_frames_is_that_asked_for_or_one_that_makes_sense(
    trained: Path, film: Path, tmp_path: Path, overrides: str, num_frames: int
) -> None:
    given = [f"input={film}", "method=replacement"] if "task" in overrides else []
    assert len(sampled(trained, tmp_path, *overrides.split(), *given)[0]) == num_frames


def test_known_frames_may_be_given_clean(trained: Path, film: Path, tmp_path: Path) -> None:
    known = ["task=extend", f"input={film}", "input_frames=all", "input_fps=4"]
    (video,) = sampled(trained, tmp_path, *known, "method=clean_frames")
    assert grays(video[:6]) == pytest.approx([40 * n for n in range(6)], abs=3)


@pytest.mark.parametrize(
    ("overrides", "begins_with"),
    [
        ("", [5, 5]),
        ("overlap=3", [4, 5, 5]),
        ("input_frames=1", [5]),
        ("input_fps=4", [4, 5]),
        ("input_fps=2", [3, 5]),
        ("input_fps=2 input_frames=all", [1, 3, 5]),
        ("from=start input_fps=4", [0, 1]),
        ("from=start input_frames=3", [0, 0, 1]),
    ],
)
def test_video_goes_on_from_the_end_of_the_input_at_the_model_s_rate(
    trained: Path, film: Path, tmp_path: Path, overrides: str, begins_with: list[int]
) -> None:
    """The film has 4 frames a second, the run was trained at 8, and a block knows 2 frames of the one before."""
    options = ["task=extend", f"input={film}", "method=replacement", *overrides.split()]
    (video,) = sampled(trained, tmp_path, *options)
    assert grays(video[: len(begins_with)]) == pytest.approx([40 * n for n in begins_with], abs=3)
    assert len(video) > len(begins_with)
    assert fps_of(tmp_path / "0000.mp4") == next(
        (float(word.removeprefix("input_fps=")) for word in overrides.split() if word.startswith("input_fps")), 8
    )


def test_frames_are_interpolated_at_the_input_s_speed(trained: Path, film: Path, tmp_path: Path) -> None:
    (video,) = sampled(trained, tmp_path, "task=interpolate", f"input={film}", "every=2")
    assert grays(video[::2]) == pytest.approx([40 * n for n in range(6)], abs=3)
    assert fps_of(tmp_path / "0000.mp4") == 8


def test_input_of_another_speed_than_in_training_is_remarked_on(
    trained: Path, film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run was trained at 8 frames a second, the film has 4."""
    extend = ["task=extend", f"input={film}", "method=replacement"]
    sampled(trained, tmp_path, *extend)
    sampled(trained, tmp_path, *extend, "input_fps=4")
    assert [record.getMessage() for record in caplog.records if "The input" in record.getMessage()] == [
        "The input has 4 frames a second, fewer than the model's 8, so that some are repeated: input_fps=4 takes each "
        "once",
        "The input's speed makes 4 frames a second, but the model was trained at 8: input_fps=8 takes frames as far "
        "apart as in training",
    ]
    caplog.clear()
    sampled(trained, tmp_path, "task=interpolate", f"input={film}", "method=replacement")
    assert not [record for record in caplog.records if "speed" in record.getMessage()]


def test_video_is_enlarged_in_blocks(trained: Path, tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.mkv", [np.full((4, 8, 3), 100 + 10 * n, np.uint8) for n in range(6)])
    (video,) = sampled(trained, tmp_path / "out", "task=superres", f"input={small}")
    assert video.shape == (6, 16, 32, 3)
    assert grays(video) == pytest.approx([100 + 10 * n for n in range(6)], abs=20)


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
    ("overrides", "message"),
    [
        ("task=extend", "task=extend: needs a video, input=FILE"),
        ("task=outpaint", "task=outpaint: no such choice: (allowed: extend, interpolate, superres)"),
        ("task=extent", "task=extent: no such choice: did you mean 'extend'? (allowed: extend, interpolate, superres)"),
        ("FILM", "say what to do with it: task=extend, interpolate or superres"),
        ("task=extend input=nowhere.mp4", "input=nowhere.mp4: no such file"),
        ("task=extend input=pyproject.toml", "input=pyproject.toml: "),
        ("task=extend FILM num_frames=2", "num_frames=2: the input alone has 2"),
        ("task=extend FILM input_frames=some", "input_frames=some: must be a whole number, at least 1"),
        ("task=extend FILM from=middle", "from=middle: no such choice"),
        ("task=superres FILM from=start", "from=start: only task=extend takes frames from one end of its input"),
        ("task=extend FILM overlap=4", "overlap=4: must be at least 1 and below the 4 frames of a block"),
        ("task=extend FILM overlap=0", "overlap=0: must be a whole number, at least 1"),
        ("num_frames=8 block_frames=1", "block_frames=1: must be at least 2"),
        (
            "task=superres FILM method=clean_frames",
            "method=clean_frames: task=superres has no frames that are known as they are",
        ),
        ("task=extend FILM method=magic", "method=magic: no such choice"),
        ("task=extend FILM reconstruction_scale=-1", "reconstruction_scale=-1: must be a number, at least 0"),
        ("task=extend FILM reconstruction_scale=much", "reconstruction_scale=much: must be a number, at least 0"),
        ("task=extend FILM input_fps=0", "input_fps=0: must be a number above 0"),
        ("task=extend FILM input_frames=0", "input_frames=0: must be a whole number, at least 1"),
        ("task=extend FILM image=a.png", "image=a.png: task=extend has its first frame from input"),
        ("task=interpolate FILM every=4", "every=4: must be below the 4 frames of a block"),
        ("task=interpolate FILM every=1", "every=1: must be at least 2"),
        ("task=interpolate FILM num_frames=10", "num_frames=10: the input's 6 frames, 2 apart, need 11"),
        ("task=interpolate FILM input_frames=1", "input: interpolation needs two frames or more"),
        ("task=superres FILM", "input: has frames of 40x50, but must have 16x32 divided by 2 or a greater number"),
        ("task=superres FILM num_frames=3", "num_frames=3: must be that of the input, 6"),
        ("batch_size=0", "batch_size=0: must be a whole number, at least 1"),
        ("guide=nowhere", "nowhere: not a run"),
        ("guide=RUN negative=blurred guidance_scale=2", "negative=blurred: has no effect with an autoguidance model"),
        ("guidance.interval=[2,1]", "guidance: interval must be two rising noise levels >= 0, but is [2.0, 1.0]"),
    ],
)
def test_bad_wish_for_a_video_is_one_line(
    trained: Path, film: Path, tmp_path: Path, overrides: str, message: str
) -> None:
    filled = overrides.replace("FILM", f"input={film}").replace("RUN", str(trained))
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        sample.run(composed("sample", f"checkpoint={trained}", f"output={tmp_path}", *filled.split()))
    assert "\n" not in str(refused.value)


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


def test_evaluation_reports_losses_by_level(trained: Path, tmp_path: Path) -> None:
    options = [f"checkpoint={trained}", f"output={tmp_path}", "num_levels=3", "batch_size=2"]
    evaluate.run(composed("evaluate", *options))
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["held_out_loss_by_t"]) == 3
    assert results["num_held_out_clips"] == 3
    assert (tmp_path / "loss_by_level.png").exists()


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (
            {"_target_": "somebody.Objective"},
            "is not allowed: it must lie in vdm.objectives; allow_own_code=true allows",
        ),
        ({"_target_": "vdm.objectives.denoising.Denoising", "power": 2}, "objective.power: unknown key"),
    ],
)
def test_objective_that_can_not_be_built_costs_the_loss_alone_and_is_told(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, objective: dict[str, Any], reason: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    write_config(run, {**load_config(run), "objective": objective})
    options = [f"checkpoint={run}", f"output={tmp_path / 'out'}", "batch_size=2", "bits_per_dim_clips=2"]
    with pytest.raises(ConfigError) as refused:
        evaluate.run(composed("evaluate", *options))
    assert reason in str(refused.value)

    evaluate.run(composed("evaluate", *options, "bits_per_dim=variational", "bits_per_dim.num_steps=2"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["bits_per_dim"]["num_clips"] == 2
    assert "held_out_loss" not in results
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("The held-out loss is left out: objective.")
    assert reason in line


def test_evaluation_on_a_missing_set_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="data_path: nowhere: no such folder"):
        evaluate.run(composed("evaluate", f"checkpoint={trained}", "data_path=nowhere"))


@pytest.mark.parametrize(
    "choice",
    [
        "variational bits_per_dim.num_steps=3",
        "exact bits_per_dim.solver.rtol=0.1 bits_per_dim.solver.atol=0.1 bits_per_dim.sigma_min=0.5",
    ],
)
def test_evaluation_reports_bits_per_dimension_and_how_they_were_measured(
    trained: Path, tmp_path: Path, choice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"checkpoint={trained}", f"output={tmp_path}", "num_levels=1", "batch_size=2", "bits_per_dim_clips=3"]
    evaluate.run(composed("evaluate", *options, *f"bits_per_dim={choice}".split()))
    found = json.loads((tmp_path / "results.json").read_text())["bits_per_dim"]
    assert found["mean"] > 0
    assert found["num_clips"] == 3
    assert choice.split("=")[-1] in found["protocol"]
    assert f"bits per dimension      {found['mean']:.4f}" in capsys.readouterr().out


def test_evaluation_samples_by_steps_that_are_not_known_before(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_digits, "train_classifier", lambda batches: moving_digits.DigitClassifier().eval())
    options = [f"checkpoint={trained}", f"output={tmp_path}", "num_levels=1", "prompted_digits=true", "num_samples=2"]
    evaluate.run(
        composed("evaluate", *options, "sampler=probability_flow", "sampler.solver.rtol=0.1", "sampler.solver.atol=0.1")
    )
    assert json.loads((tmp_path / "results.json").read_text())["num_samples"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bits_per_dim_clips=0", "bits_per_dim_clips=0: must be a whole number, at least 1"),
        ("num_levels=some", "num_levels=some: must be a whole number, at least 1"),
        ("max_clips=0", "max_clips=0: must be a whole number, at least 1, or null"),
        ("prompted_digits=maybe", "prompted_digits=maybe: must be auto, true or false"),
        (
            "bits_per_dim=variational bits_per_dim.num_steps=0",
            "bits_per_dim.num_steps: 0 is not allowed",
        ),
        (
            "bits_per_dim=exact bits_per_dim.num_probes=0",
            "bits_per_dim.num_probes: 0 is not allowed",
        ),
    ],
)
def test_bad_wishes_for_evaluation_are_one_line(trained: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate.run(composed("evaluate", f"checkpoint={trained}", *override.split()))


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


def test_loss_follows_the_seed(trained: Path, tmp_path: Path) -> None:
    def loss(seed: int) -> float:
        folder = tmp_path / "evaluation"
        evaluate.run(composed("evaluate", f"checkpoint={trained}", f"output={folder}", f"seed={seed}", "num_levels=2"))
        return json.loads((folder / "results.json").read_text())["held_out_loss"]

    assert loss(1) == loss(1) != loss(2)


def test_clips_that_can_not_be_read_are_left_out(trained: Path, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "shards", {"train": (5,), "validation": (3,)})
    (tar,) = shards.glob("validation-*.tar")
    content = tar.read_bytes()
    options = [f"checkpoint={trained}", f"data_path={shards}", f"output={tmp_path / 'out'}", "batch_size=1"]
    options += ["num_levels=1"]
    start = content.index(b"ftyp")
    tar.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    evaluate.run(composed("evaluate", *options))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["num_held_out_clips"] == 2


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
