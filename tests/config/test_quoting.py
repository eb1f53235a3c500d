import random
import subprocess
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from vdm.config.quoting import escaped, hydra_quoted, shell_list, shell_override, shell_word

_PIECES = (
    "\\",
    "$",
    "{",
    "}",
    "${",
    "${oc.env:HOME}",
    "'",
    '"',
    "!",
    "`",
    " ",
    "\n",
    "(",
    "]",
    ",",
    "é",
    "🎥",
    "7",
    "",
)


def texts(number: int) -> list[str]:
    """Return texts of characters that some grammar gives a meaning."""
    draw = random.Random(0)
    return ["".join(draw.choices(_PIECES, k=draw.randint(0, 6))) for _ in range(number)]


def test_any_text_passes_through_hydras_grammar_and_omegaconf_as_it_is() -> None:
    parser = OverridesParser.create()
    for text in texts(200):
        value = parser.parse_override(f"key={hydra_quoted(escaped(text))}").value()
        config: Any = OmegaConf.to_container(OmegaConf.create({"key": value, "other": "${key}"}), resolve=True)
        assert config == {"key": text, "other": text}


def test_any_text_is_one_word_of_a_shell() -> None:
    given = texts(200)
    command = "printf '%s\\0' " + " ".join(map(shell_word, given))
    assert (
        subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode().split("\0")[:-1] == given
    )


@pytest.mark.parametrize("text", ["a dog (fast)", "it's", '50% [off], "now"!', "~/a=b"])
def test_what_is_to_be_typed_gives_the_text_and_a_list_of_it(text: str) -> None:
    parser = OverridesParser.create()
    for line, value in ((shell_override("key", text), text), (shell_list("key", [text, "b"]), [text, "b"])):
        typed = subprocess.run(["sh", "-c", f"printf %s {line}"], capture_output=True, text=True, check=True).stdout
        assert parser.parse_override(typed).value() == value


def test_escaping_reaches_every_text_and_leaves_other_values() -> None:
    node = {"a": ["${x}", {"b": "\\${"}], "n": 1.5, "none": None, "c": (1, "$")}
    plain = {"a": ["${x}", {"b": "\\${"}], "n": 1.5, "none": None, "c": [1, "$"]}
    assert OmegaConf.to_container(OmegaConf.create(escaped(node)), resolve=True) == plain
