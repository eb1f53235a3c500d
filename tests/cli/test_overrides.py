"""The command line as it is typed: texts without quotes, and what other programs' habits are answered with."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.cli.conftest import Vdm
from tests.config.test_quoting import texts
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.run_record import load_config, record_run
from vdm.cli.options.sample import SampleOptions
from vdm.cli.options.train import TrainOptions
from vdm.cli.overrides import readable
from vdm.config import ConfigError
from vdm.config.conf_dir import conf_dir


def read(*arguments: str, options: type = SampleOptions) -> dict[str, Any]:
    """Return what a command takes from these arguments."""
    command = {SampleOptions: "sample", TrainOptions: "train"}[options]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, readable(arguments, options, conf_dir()))
    return {key: config[key] for key in ("prompts", "negative", "checkpoint", "output", "ema") if key in config}


PATHS = [
    "7",
    "1e3",
    "007",
    "1_000",
    "true",
    "nan",
    "RUN/checkpoints/step=00000500",
    "a b (1)",
    "it's",
    "é/ü",
    "a,b",
    "x#y",
]


@pytest.mark.parametrize("path", [*PATHS, "[a]/(b", "choice(1,2)", "int(3)", "a&b;c", "a\nb", 'say "hi"', "-3"])
def test_path_needs_no_quotes(path: str) -> None:
    assert read(f"checkpoint={path}")["checkpoint"] == path


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("a dog, running (fast)", "a dog, running (fast)"),
        ('it\'s 50% off, "now"!', 'it\'s 50% off, "now"!'),
        ("'a dog'", "a dog"),
        ("'7'", "7"),
        ("a dog\\, a cat", "a dog, a cat"),
        ("'a dog' and 'a cat'", "'a dog' and 'a cat'"),
        ("null", None),
        ("", ""),
        ("犬が走る", "犬が走る"),
        ("[a dog,'a cat, asleep']", ["a dog", "a cat, asleep"]),
    ],
)
def test_prompt_needs_no_quotes_and_a_list_has_brackets(typed: str, text: object) -> None:
    assert read(f"prompts={typed}")["prompts"] == text


def test_any_caption_is_taken_as_it_is_written() -> None:
    """But for blanks at its ends, and what Hydra reads as a text by other rules: quotes, brackets and backslashes."""
    for text in texts(100):
        if text.strip() == text not in ("", "7") and "\\" not in text and not text.startswith(("[", "{", "'", '"')):
            assert read(f"negative={text}")["negative"] == text


@pytest.mark.parametrize("key", ["data.path", "data.cache_path", "model.pretrained", "hydra.run.dir", "resume", "name"])
def test_paths_of_training_need_no_quotes_either(key: str) -> None:
    for text in ("7", "my set (1)", "it's, é"):
        (line,) = readable([f"{key}={text}"], TrainOptions, conf_dir())
        assert OverridesParser.create().parse_override(line).value() == text
    assert readable(["data.path={a: 0.5, b: 0.5}"], TrainOptions, conf_dir()) == ["data.path={a: 0.5, b: 0.5}"]


def test_dollars_and_braces_mean_nothing_in_captions_and_refer_to_options_in_paths() -> None:
    found = read("negative=costs ${5}", "checkpoint=run", "output=${checkpoint}/a (b)")
    assert (found["negative"], found["output"]) == ("costs ${5}", "run/a (b)")


def test_averages_are_named_or_switched() -> None:
    assert read("ema=false")["ema"] is False
    assert read("ema=half_life_500 (old)")["ema"] == "half_life_500 (old)"


def test_sweep_has_hydras_own_syntax() -> None:
    assert readable(["-m", "prompts=a,b", "checkpoint=7"], SampleOptions, conf_dir()) == [
        "-m",
        "prompts=a,b",
        "checkpoint=7",
    ]


def test_command_line_that_was_read_before_is_read_alike() -> None:
    once = readable(["checkpoint=step=5", "prompts=a, b", "negative=${x}"], SampleOptions, conf_dir())
    assert readable(once, SampleOptions, conf_dir()) == once


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.path", "X"], "--data.path: options are KEY=VALUE: data.path=X"),
        (["--num-videos=3"], "--num-videos=3: options are KEY=VALUE: num_videos=3"),
        (["-o", "my out"], "-o: options are KEY=VALUE: \"output='my out'\""),
        (["--prompts"], "--prompts: options are KEY=VALUE: prompts=..."),
        (["-"], "-: options are KEY=VALUE: KEY=VALUE"),
        (["seed", "3"], "seed: options are KEY=VALUE: seed=..."),
        (["runs/a"], "runs/a: options are KEY=VALUE: checkpoint=runs/a"),
        (["sampler=null"], "sampler=null: no such option: (allowed: ddim, ddpm, "),
        (["sampler=7"], "sampler=7: no such option: (allowed: ddim, ddpm, "),
        (["prompts=[a (b), c]"], "a list has brackets, and texts in it need quotes: \"prompts=['a (b)','c']\""),
        (["labels=0,1"], 'a list has brackets, and texts in it need quotes: "labels=[0,1]"'),
    ],
)
def test_other_habits_are_answered_with_what_to_type(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        readable(arguments, SampleOptions, conf_dir())
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "flags", [["--cfg", "job"], ["-c", "all"], ["--config-dir=x"], ["-cd", "x"], ["--help"], ["~seed"]]
)
def test_flags_of_hydra_pass(flags: list[str]) -> None:
    assert readable(flags, SampleOptions, conf_dir()) == flags


@pytest.mark.parametrize("value", ["my set (1)", "it's", "é", "a=b", "costs ${5", "!x", "[a (b),c]"])
def test_value_that_can_not_be_read_is_answered_by_a_line_that_works_when_pasted(vdm: Vdm, value: str) -> None:
    said = vdm("train", f"data.path={value}").err
    assert said.startswith(f"Cannot read 'data.path={value}' as KEY=VALUE")
    line = said.partition("quote the value: ")[2].strip()
    typed = subprocess.run(["sh", "-c", f"printf %s {line}"], capture_output=True, text=True, check=True).stdout
    (config,) = vdm("train", typed).configs
    plain: Any = OmegaConf.to_container(config, resolve=True)
    assert plain["data"]["path"] == (["a (b)", "c"] if value.startswith("[") else value)


def test_texts_with_interpolations_in_them_are_recorded_read_and_resumed_as_they_are(vdm: Vdm) -> None:
    names = ["${seed}", "a ${", "\\${b}", "${oc.env:HOME}", "1e3"]

    def task(config: Any) -> None:
        plain: Any = OmegaConf.to_container(config, resolve=True)
        seen.append(plain)
        record_run(Path("first"), {**plain, "clip": {"label_names": names}})

    seen: list[Any] = []
    vdm("train", "hydra.run.dir=first", "data.path=\\${seed}", task=task)
    assert seen[0]["data"]["path"] == "${seed}"
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)
    for again in (["resume=first"], ["hydra.run.dir=first", "data.path=\\${seed}"]):
        outcome = vdm("train", *again, task=task)
        assert outcome.code == 0, outcome.err
        assert seen[-1]["data"]["path"] == "${seed}"
        assert load_config(Path("first"))["clip"]["label_names"] == names
    assert len(seen) == 3
    assert seen[1]["clip"]["label_names"] == names
