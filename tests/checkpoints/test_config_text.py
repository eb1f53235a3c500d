"""What is recorded of a run is what is read, whatever texts look like."""

import yaml
from omegaconf import OmegaConf

from vdm.checkpoints.config_text import config_text

TEXTS = [
    "a ${b}",
    "${",
    "\\${c}",
    "1e3",
    "1_000",
    "1:30",
    "null",
    "true",
    "on",
    "2020-01-01",
    "a: b",
    "- c",
    "é 🎥",
    "",
]
TEXTS += ["a\nb", "'", '"', "~", "=", "<<", "#", "0x1F", ".5", "-", "&a", "*a", "!!x"]


def test_every_text_is_read_as_it_was_written() -> None:
    config = {"texts": TEXTS, "by_text": {text: text for text in TEXTS}, "numbers": [1, 2.5e-7, 1e300, None, True]}
    assert yaml.safe_load(config_text(config)) == config


def test_texts_that_look_like_numbers_stay_texts_for_other_readers() -> None:
    for text in ("1e3", "1.5", "7", "-2e-5", "007"):
        assert OmegaConf.create(config_text({"key": text})) == {"key": text}


def test_equal_values_are_written_out_at_each_place() -> None:
    shared = [1, 2]
    assert config_text({"a": shared, "b": {"c": shared}, "d": (1,)}) == (
        "a:\n- 1\n- 2\nb:\n  c:\n  - 1\n  - 2\nd:\n- 1\n"
    )
