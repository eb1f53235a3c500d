"""``vdm sample`` and ``vdm evaluate`` on a small real run, called as the commands call them."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tests.data.shard_sets import write_set
from tests.training.runs import configuration, train
from vdm.cli import evaluate, sample
from vdm.cli.conf_dir import conf_dir
from vdm.cli.resume import register_run_dir
from vdm.config import ConfigError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, conditioned on text, classes and the first frame."""
    folder = tmp_path_factory.mktemp("trained")
    shards = write_set(folder / "shards", {"train": (5,), "validation": (3,)})
    conditions = ("model.conditioner.num_classes=3", "model.conditioner.image=true")
    train(folder / "run", configuration(shards, *conditions, "trainer.max_steps=1"))
    return folder / "run"


def composed(command: str, *overrides: str) -> DictConfig:
    register_run_dir()
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
    assert names == videos | {"grid.mp4", "grid.gif", "grid.png"}
    assert frames_of(tmp_path / "out" / "0000-a-red-dog.mp4").shape == (3, 16, 32, 3)


def test_prompts_come_from_a_file_too(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\n two \n")
    options = [f"checkpoint={trained}", f"prompts_file={file}", f"output={tmp_path / 'out'}", "sampler.num_steps=1"]
    sample.run(composed("sample", *options))
    assert {path.name for path in (tmp_path / "out").glob("0*")} == {"0000-one.mp4", "0001-two.mp4"}


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
        ("sampler.eta=2", "sampler: eta must lie in [0, 1]"),
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


def test_evaluation_on_a_missing_set_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="data_path: nowhere: no such folder"):
        evaluate.run(composed("evaluate", f"checkpoint={trained}", "data_path=nowhere"))
