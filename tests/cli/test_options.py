"""Every option of every command: what it must not be, made from its annotation, is refused in one line."""

import math
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Interval
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from data_pipelines.cli import COMMANDS as DATA_COMMANDS
from vdm.cli.main import COMMANDS
from vdm.cli.run_folder import register_run_folder
from vdm.config import ConfigError
from vdm.config.conf_dir import conf_dir
from vdm.config.options import NeverANumber, Option, check_given, options_of, parse
from vdm.config.words import limits_of

ALL = {**COMMANDS, **DATA_COMMANDS}
COMMANDS_OF_ALL = sorted(ALL)
WRONG: list[Any] = [
    *(True, 0, 7, -1, 1.5, -0.5, 10**30, 1e30, math.nan, math.inf, -math.inf, None),
    *("abc", "7", "1e3", "false", "off", "", " ", "nan", "a/b", "a\nb", "x" * 300, "a\0b"),
    *([], ["a"], [7], [None], [[1]], {}, {"a": 1}),
]


@cache
def given(command: str) -> dict[str, Any]:
    """Return a command's options as its YAML has them, with something in the place of what a user must say."""
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose(command), resolve=False)
    needed = {
        "checkpoint": "run",
        "run": "run",
        "input": "in",
        "output": "out",
        "from": "in",
        "to": "out",
        "sigma_rel": 0.1,
    }
    given_at_last = {name: needed.get(name, 1) if value == "???" else value for name, value in plain.items()}
    return {name: 1.0 if value == "${guidance.scale}" else value for name, value in given_at_last.items()}


def changed(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return options with another value of one."""
    name, _, rest = key.partition(".")
    return {**values, name: changed(values[name], rest, value) if rest else value}


def is_allowed_by_kind(value: Any, option: Option) -> bool:
    """Tell whether a value is of a type that the annotation names; whole numbers are numbers too."""
    kinds = option.kinds | ({str} if Path in option.kinds else frozenset())
    return type(value) in (kinds | {int} if float in kinds else kinds)


def is_ruled_out(value: Any, option: Option) -> bool:
    """Tell whether an option's annotation rules a value out, by its type, range or shape."""
    if not is_allowed_by_kind(value, option):
        return True
    if isinstance(value, int | float) and not isinstance(value, bool):
        return not math.isfinite(value) or not _is_within(value, limits_of(option.annotation))
    if isinstance(value, list):
        return value != ["a"] and not (value == [7] and int in option.kinds)
    return Path in option.kinds and isinstance(value, str) and (not value.strip() or len(value) > 255 or "\0" in value)


def _is_within(value: float, limits: dict[str, Any]) -> bool:
    within = Interval(**{name: limits[name] for name in ("ge", "gt", "le", "lt") if name in limits})
    return (
        (within.ge is None or value >= within.ge)  # type: ignore[operator]
        and (within.gt is None or value > within.gt)  # type: ignore[operator]
        and (within.le is None or value <= within.le)  # type: ignore[operator]
        and (within.lt is None or value < within.lt)  # type: ignore[operator]
    )


def _beyond(limits: dict[str, Any]) -> Iterator[float]:
    steps = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
    yield from (bound + steps[name] for name, bound in limits.items() if name in steps)


@pytest.mark.parametrize("command", COMMANDS_OF_ALL)
def test_conf_has_every_option_and_no_other(command: str) -> None:
    cls = ALL[command].options_class()
    assert cls is not None
    check_given(cls, given(command))
    parse(cls, given(command))


@pytest.mark.parametrize("command", COMMANDS_OF_ALL)
def test_what_an_annotation_rules_out_is_refused_in_one_line(command: str) -> None:
    cls = ALL[command].options_class()
    assert cls is not None
    values = given(command)
    for option in options_of(cls):
        if option.key.partition(".")[0] not in values or (command == "plan" and option.key in given("train")):
            continue  # only there with a group, or tried with another command
        for value in [*WRONG, *_beyond(limits_of(option.annotation))]:
            said = _refusal(cls, changed(values, option.key, value))
            if said is None:
                assert not is_ruled_out(value, option), (option.key, value)
            else:
                assert said.startswith(option.key) or "." not in option.key, (option.key, value, said)
                assert 10 < len(said) < 1000


def _refusal(cls: type, values: dict[str, Any]) -> str | None:
    """Return how options are refused, early and at last alike, or that they are not."""
    said: list[str | None] = []
    for check in (check_given, parse):
        try:
            check(cls, values)
        except ConfigError as error:
            said.append(str(error))
        else:
            said.append(None)
    early, at_last = said
    assert early in (None, at_last)
    return at_last


def test_security_switches_are_true_or_false_and_nothing_else() -> None:
    for command in ("sample", "evaluate", "import"):
        cls = ALL[command].options_class()
        assert cls is not None
        (switch,) = (option for option in options_of(cls) if option.key == "allow_own_code")
        assert switch.kinds == {bool}


def test_prompts_are_marked_so_that_numbers_in_their_place_are_questioned() -> None:
    cls = ALL["sample"].options_class()
    assert cls is not None
    marked = {option.key for option in options_of(cls) if option.has(NeverANumber)}
    assert marked == {"prompts", "negative", "labels"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("vdm sample checkpoint=7 seed=abc", "seed=abc: must be a whole number, at least 0"),
        ("vdm sample checkpoint=7", "7: not a run: there is no config.yaml, nor such a folder"),
        ("vdm sample checkpoint=7 prompts=7", "prompts=7: must be text or a list of one or more texts, or null;"),
        ("vdm evaluate checkpoint=7 allow_own_code=no", "allow_own_code=no: must be true or false"),
        ("vdm train name=a/b", "name=a/b: must be the name of a folder"),
        ("vdm train ~seed", "seed: is deleted, or an empty choice, but the command needs it"),
        ("vdm train --max_steps 3", "--max_steps: options are KEY=VALUE: max_steps=3"),
        ("vdm import from=1e3 to=.", "to=.: exists already"),
        ("vdm-data build input=7 output=out", "input=7: no such folder; give a folder of videos"),
        ("vdm-data show 7 max_clips=1.5", "max_clips=1.5: must be a whole number, at least 0"),
    ],
)
def test_mistake_ends_a_command_with_one_line_and_code_2(tmp_path: Path, arguments: str, message: str) -> None:
    program, *rest = arguments.split()
    (tmp_path / "file").touch()
    module = {"vdm": "vdm.cli.main", "vdm-data": "data_pipelines.cli"}[program]
    code = (
        f"import sys; sys.argv = {[program, *rest]!r}\n"
        f"from {module} import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
