"""Every YAML of conf/ composes, and each of its components names what exists and takes its keys."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vdm.cli.run_folder import register_run_folder
from vdm.config import check
from vdm.config.conf_dir import conf_dir

PRIMARY = sorted(path.stem for path in conf_dir().glob("*.yaml"))
OPTIONS = sorted(path.relative_to(conf_dir()) for path in conf_dir().glob("*/**/*.yaml"))
OF_COMMANDS = ("run_folder", "pretrained")
"""The groups of which a command's YAML chooses, and its user none."""

OF_OTHERS = {"known_frames": ("train", "diffusion/frame_levels=known_frames", "diffusion.frame_levels.frames")}
"""Groups of which a YAML of another group chooses: the command, that YAML, and the key of the choice."""

GIVEN = {"sample": ["guidance_scale=1"], "evaluate": ["guidance_scale=1"], "plan": ["data.path=SHARDS"]}
"""What is null in a command's YAML: until a run's configuration is read, or where plan is told the clips' shape."""


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def _checked(config_name: str, *overrides: str) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(compose(config_name, [*overrides, *GIVEN.get(config_name, [])]), resolve=True)
    for key, node in config.items():
        check(node, key)
    return config


@pytest.mark.parametrize("config_name", PRIMARY)
def test_configuration_of_each_command_is_sound(config_name: str) -> None:
    assert _checked(config_name)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.parts[0] not in OF_COMMANDS], ids=str)
def test_each_option_of_each_group_is_sound(option: Path) -> None:
    group = option.parent.as_posix()
    if group in OF_OTHERS:
        config_name, chosen, key = OF_OTHERS[group]
        assert _checked(config_name, chosen, f"{group}@{key}={option.stem}")
        return
    line = re.compile(rf"(?<!\w){option.parts[0]}:")  # no part of another group's name, as in text_encoder
    texts = {name: re.sub("#.*", "", (conf_dir() / f"{name}.yaml").read_text()) for name in PRIMARY}
    users = [name for name, text in texts.items() if line.search(text)]

    assert users, f"no command has the group {group}"
    for config_name in users:
        assert _checked(config_name, f"{group}={option.stem}")
