"""Keys, choices and meanings of all commands: what Hydra composes, and what each key means."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vdm.cli.manual.page import Manual
from vdm.cli.manual.sections import HIDDEN_GROUPS, SECTIONS
from vdm.cli.manual.tree import Conf, Tree
from vdm.cli.manual.yaml_file import Setting, read_yaml_file
from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir

COMMANDS = sorted(path.stem for path in conf_dir().glob("*.yaml"))
CONF = Conf([conf_dir()])


def _choices(tree: Tree) -> list[dict[str, str]]:
    """Each choice of each group that a user may make, alone."""
    groups = [group for group in tree.groups if group.key.split("@")[0].split("/")[0] not in HIDDEN_GROUPS]
    return [{}, *({group.key: option} for group in groups for option in group.options)]


def _fewer_choices(tree: Tree) -> list[dict[str, str]]:
    """Choices with each option of each group, some of them together.

    Alone: presets, which may change other groups. At once, the first options and so on: parts, such as
    ``diffusion/schedule``, which don't.
    """
    alone: list[dict[str, str]] = []
    parts: dict[str, list[str]] = {}
    for choice in _choices(tree):
        for group, option in choice.items():
            if "/" in group:
                parts.setdefault(group, []).append(option)
        if not any("/" in group for group in choice):
            alone.append(choice)
    numbers = range(max(map(len, parts.values()), default=0))
    return [*alone, *({group: options[n] for group, options in parts.items() if n < len(options)} for n in numbers)]


def _plain(settings: Any) -> dict[str, Any]:
    return {
        key: yaml.safe_load(one.value) if one.children is None else _plain(one.children)
        for key, one in settings.items()
        if key != "hydra"
    }


def _shown(command: str, choice: dict[str, str]) -> dict[str, Setting]:
    return Manual("vdm", command, CONF, choice).keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_keys_and_values_are_those_that_hydra_composes(command: str) -> None:
    register_run_folder()
    of_train = {group.key for group in CONF.tree("train").groups} if command != "train" else set()
    choices = [choice for choice in _fewer_choices(CONF.tree(command)) if of_train.isdisjoint(choice)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for choice in choices:
            composed = compose(command, [f"{group}={option}" for group, option in choice.items()])
            expected: Any = OmegaConf.to_container(composed, resolve=False)
            expected.pop("hydra", None)
            assert _plain(CONF.tree(command, choice).settings) == expected, choice


@pytest.mark.parametrize("command", COMMANDS)
def test_each_key_that_is_shown_has_a_meaning(command: str) -> None:
    for choice in _fewer_choices(CONF.tree(command)) if command not in ("plan", "check") else [{}]:  # as train
        manual = Manual("vdm", command, CONF, choice)
        assert not [key for key, setting in manual.keys().items() if not setting.meaning], choice
        assert not [key for key, group in manual.groups().items() if not group.meaning], choice


FILES = sorted(conf_dir().rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_says_what_it_is(file: Path) -> None:
    assert read_yaml_file(file).summary


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_three_examples(command: str) -> None:
    assert len(read_yaml_file(conf_dir() / f"{command}.yaml").examples) == 3


@pytest.mark.parametrize("command", sorted(SECTIONS))
def test_what_the_short_help_shows_is_there(command: str) -> None:
    manual = Manual("vdm", command, CONF, {})
    known = manual.keys().keys() | manual.groups().keys()
    assert not [key for keys in SECTIONS[command].values() for key in keys if key not in known]


def test_a_choice_changes_the_keys_and_defaults() -> None:
    assert "diffusion.schedule.sigma_max" not in _shown("train", {})
    assert _shown("train", {"diffusion": "edm"})["diffusion.schedule.sigma_max"].value == "80.0"
    assert _shown("train", {"experiment": "moving_digits"})["trainer.max_steps"].value == "1500"


def test_comments_are_read_as_people_write_them(tmp_path: Path) -> None:
    lines = [
        *("# @package _global_", "# What it is,", "# and for whom.", "#   vdm run a=1   # first"),
        *("value: 'a # b'  # its meaning,", "                # and more of it"),
        *("list: [1,", "  2]   # two", ""),
        *("# Of the second kind.", "# above", "bare:", "  inner: 1  # one"),
        *("# without a blank line", "last: null", ""),
        *("# A section.", "own: x#y  # own", "empty:  # nothing", ""),
    ]
    (tmp_path / "run.yaml").write_text("\n".join(lines))
    file = read_yaml_file(tmp_path / "run.yaml")

    assert (file.summary, file.examples) == ("What it is, and for whom.", ("vdm run a=1   # first",))
    assert file.package == "_global_"
    found = {key: (one.value, one.meaning, one.section) for key, one in file.settings.items()}
    assert found == {
        "value": ("'a # b'", "its meaning, and more of it", ""),
        "list": ("[1, 2]", "two", ""),
        "bare": ("", "Of the second kind. above", ""),
        "last": ("null", "without a blank line", ""),
        "own": ("x#y", "own", "A section."),
        "empty": ("null", "nothing", ""),
    }
    assert file.settings["bare"].children == {"inner": Setting("one", "1")}
