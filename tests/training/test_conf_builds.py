"""Every option of the groups that train a model builds, beside the rest of a small run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.pretrained import save_clip, save_t5
from tests.training.runs import configuration
from vdm.config.conf_dir import conf_dir
from vdm.training.training_run import build_training

GROUPS = (
    "averages",
    "callbacks",
    "debug",
    "diffusion",
    "encoder",
    "guidance",
    "logger",
    "lr_schedule",
    "optimizer",
    "sampler",
)
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((conf_dir() / group).glob("*.yaml"))]
WAN = [f"model={path.stem}" for path in (conf_dir() / "model").glob("wan*.yaml")]
PUBLISHED = ("encoder=wan", "encoder=svd", "encoder=frames", "model=svd", "model=modelscope", *WAN)
"""Loads published weights, or is of their size; tests/cli/test_import_and_export.py and test_wan.py there and in
tests/training build from small ones, and tests/models/dit on the meta device."""


@pytest.mark.parametrize(
    "option",
    [
        *(option for option in OPTIONS if option not in PUBLISHED),
        "strategy=auto",
        "strategy=single",
        "strategy=ddp",
        "trainer=default",
    ],
)
def test_smoke_each_option_builds(tmp_path: Path, shards: Path, option: str) -> None:
    config = configuration(shards, option, without=("sampler.",))  # not every sampler has a number of steps
    training = build_training(config, tmp_path)

    assert training.trainer.max_steps == config["trainer"]["max_steps"]
    for key in ("encoder", "diffusion", "sampler", "guidance"):
        assert _path_of(getattr(training.module.model, key)) == config[key]["_target_"]


@pytest.mark.parametrize(
    "name",
    sorted({path.stem for path in (conf_dir() / "model").glob("*.yaml") if f"model={path.stem}" not in PUBLISHED}),
)
def test_smoke_each_model_builds_in_its_own_size(tmp_path: Path, shards: Path, name: str) -> None:
    config = configuration(shards, f"model={name}", without=("model.network.",))
    network = build_training(config, tmp_path).module.model.network

    assert _path_of(network) == config["model"]["network"]["_target_"]


def _path_of(component: object) -> str:
    return f"{type(component).__module__}.{type(component).__qualname__}"


@pytest.mark.parametrize(("kind", "save", "width"), [("t5", save_t5, 16), ("clip", save_clip, 24)])
def test_frozen_text_encoders_build_from_a_folder(
    tmp_path: Path, shards: Path, kind: str, save: Callable[[Path], Path], width: int
) -> None:
    folder = save(tmp_path / kind)
    choice = [f"text_encoder={kind}", f"text_encoder.name_or_path={folder}", "text_encoder.max_tokens=12"]
    config = configuration(shards, *choice, without=("text_encoder",))
    training = build_training(config, tmp_path)
    assert training.module.model.conditioner.text_channels == width
    names = [name for name, parameter in training.module.named_parameters() if parameter.requires_grad]
    assert not any("frozen" in name for name in names)
