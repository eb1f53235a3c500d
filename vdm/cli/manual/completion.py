"""Shell completion, by ``eval "$(vdm --completion bash)"`` in ``~/.bashrc``; also for zsh and fish.

At each TAB the shell runs ``vdm --complete LINE``, which prints the possible completions of the last word. It reads
YAMLs and folders, and imports neither Hydra nor PyTorch.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vdm.cli.manual import FLAGS
from vdm.cli.manual.call import conf_of
from vdm.cli.manual.page import Manual

PATHS = frozenset(
    {
        *("checkpoint", "resume", "init_from", "guide", "hydra.run.dir"),
        *("data.path", "data.cache_path", "data.quarantine_path", "data_path", "model.pretrained"),
        *(
            "folder",
            "input",
            "output",
            "work",
            "manifest",
            "image",
            "last_image",
            "prompts_file",
            "settings",
            "from",
            "to",
        ),
        *("components", "rest_of", "videos", "reference", "export", "run"),
    }
)
"""Keys whose values are files and folders."""
_RUNS = frozenset({"checkpoint", "resume", "init_from", "guide", "run"})
"""Keys whose values are folders of runs or checkpoints."""
_SHARDS = ("index", "show", "verify")
"""Commands that take a folder as a bare argument."""

_SCRIPTS = {
    "bash": r"""_PROGRAM() {
    local IFS=$'\n'
    COMPREPLY=($(PROGRAM --complete "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
complete -F _PROGRAM PROGRAM""",
    "zsh": r"""_PROGRAM() {
    local -a found spaced
    found=(${(f)"$(PROGRAM --complete "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    spaced=(${found:#*[=./]})
    found=(${(M)found:#*[=./]})
    (( $#spaced )) && compadd -Q -U -- $spaced
    (( $#found )) && compadd -Q -U -S '' -- $found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _PROGRAM PROGRAM""",
    "fish": """complete -c PROGRAM -f -a '(PROGRAM --complete (commandline -cp) 2>/dev/null)'""",
}


def run_completion(program: str, commands: Sequence[str], arguments: Sequence[str]) -> int:
    """Answer ``--completion SHELL`` and ``--complete LINE [WORD_BREAKS]``; return the exit code."""
    flag, *rest = arguments
    if flag == "--complete" and rest:
        print("\n".join(completions(program, commands, rest[0], rest[1] if len(rest) > 1 else "")))
        return 0
    script = _SCRIPTS.get(rest[0]) if len(rest) == 1 else None
    if script is None:
        print(f"{program} {flag}: give one of {', '.join(_SCRIPTS)}", file=sys.stderr)
        return 2
    name = re.sub(r"\W", "_", program)
    print(script.replace("_PROGRAM", f"_{name}").replace("PROGRAM", program))
    return 0


def completions(program: str, commands: Sequence[str], line: str, word_breaks: str = "") -> list[str]:
    """Return the completions of the last word of a line, quoted for the shell.

    Args:
        program: Name of the program; words before it are ignored.
        commands: Names of the program's commands.
        line: The line up to the cursor.
        word_breaks: Characters at which the shell starts a new word, such as ``=`` in bash; the text up to the last of
            them is left out.
    """
    words, quote = _words(line)
    begin = next((i for i, word in enumerate(words) if Path(word).name == program), None)
    if begin is None or begin == len(words) - 1:
        return []
    *before, last = words[begin + 1 :]
    if not before:
        found = [one for one in (*commands, "--help", "--version", "--completion") if one.startswith(last)]
    elif before[0] in commands:
        found = sorted(set(_of_command(program, before[0], before[1:], last)))
    else:
        found = []
    kept = max((last.rfind(char) for char in word_breaks if char in last), default=-1) + 1 if not quote else 0
    if quote and "=" in last and "=" in word_breaks:
        kept = 0
    return [_quoted(one[kept:], quote) for one in found]


def _words(line: str) -> tuple[list[str], str]:
    """Return the words of a line and the quote that is open at its end; the last word may be unfinished or empty."""
    for quote in ("", "'", '"'):
        try:
            words = shlex.split(f"{line}x{quote}" if not line.endswith("\\") else f"{line[:-1]}x{quote}")
        except ValueError:
            continue
        words[-1] = words[-1][:-1]
        return words, quote
    return [], ""


def _quoted(word: str, quote: str) -> str:
    return word if quote else re.sub(r"([^\w@%+=:,./~-])", r"\\\1", word)


def _of_command(program: str, command: str, before: Sequence[str], last: str) -> Iterator[str]:
    key, has_value, value = last.partition("=")
    if has_value:
        yield from (f"{key}={one}" for one in _values(program, command, before, key, value))
    elif last.startswith("-"):
        yield from (flag for flag in (*FLAGS, "-m", "--multirun", "--cfg", "--config-dir") if flag.startswith(last))
    else:
        if command in _SHARDS:
            yield from _paths(last, runs_alone=False)
        yield from _keys(_manual(program, command, before), last)
        if not set(FLAGS).isdisjoint(before):
            yield from (topic for topic in ("all",) if topic.startswith(last))


def _manual(program: str, command: str, before: Sequence[str]) -> Manual:
    chosen = dict(word.lstrip("+").split("=", 1) for word in before if "=" in word)
    return Manual(program, command, conf_of(before), chosen)


def _keys(manual: Manual, start: str) -> Iterator[str]:
    """Yield keys and groups up to the next level below what is typed, such as ``data.`` for ``d``."""
    groups = manual.groups()
    names = [*manual.keys(), "hydra.run.dir"]
    for name in names:
        if name.startswith(start):
            end = name.find(".", len(start))
            yield f"{name}=" if end < 0 else name[: end + 1]
    for name in groups:
        if name.startswith(start) and "/" not in name[len(start) :].strip("/"):
            yield f"{name}="
            if any(other.startswith(f"{name}/") for other in groups) and name != start:
                yield f"{name}/"


def _values(program: str, command: str, before: Sequence[str], key: str, value: str) -> Iterator[str]:
    key = key.lstrip("+")
    if key in PATHS:
        yield from _paths(value, runs_alone=key in _RUNS)
        return
    manual = _manual(program, command, before)
    group, setting = manual.groups().get(key), manual.keys().get(key)
    options: Iterable[str] = ()
    if group is not None:
        options = group.options
    elif setting is not None and setting.value in ("true", "false"):
        options = ("true", "false")
    yield from (option for option in options if option.startswith(value))


def _paths(start: str, runs_alone: bool) -> Iterator[str]:
    """Yield the paths that begin with ``start``. Folders end in ``/``, so that typing can continue; runs do not.

    Args:
        start: The typed part of a path.
        runs_alone: Whether files are left out.
    """
    name = start.rpartition("/")[2]
    prefix = start[: len(start) - len(name)]
    try:
        folder = Path(prefix or ".").expanduser()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (OSError, RuntimeError, ValueError):  # no such folder, or no such user
        return
    for entry in entries:
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        if entry.is_dir():
            path = Path(entry.path)
            is_whole = (path / "config.yaml").is_file() or path.parent.name == "checkpoints"
            yield f"{prefix}{entry.name}" if runs_alone and is_whole else f"{prefix}{entry.name}/"
            if runs_alone and is_whole and entry.name == name:
                yield f"{prefix}{entry.name}/"
        elif not runs_alone:
            yield f"{prefix}{entry.name}"
