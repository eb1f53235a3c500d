"""A console script with commands: runs the one that is asked for, without imports of the others."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

from vdm.cli.manual import FLAGS
from vdm.cli.manual.versions import versions
from vdm.cli.options.base import CommandOptions


class Command(NamedTuple):
    """A command; ``conf/NAME.yaml`` is its configuration."""

    module: str
    """Module with ``run(config: DictConfig) -> int | None``, imported when the configuration has been checked."""
    summary: str
    """One line for the list of commands."""
    options: str | None = None
    """``MODULE:CLASS`` of its options: a dataclass without heavy imports, which checks the command line."""

    def options_class(self) -> type[CommandOptions] | None:
        """Import and return the class of its options."""
        if self.options is None:
            return None
        module, _, name = self.options.partition(":")
        return getattr(import_module(module), name)


def run_program(program: str, commands: Mapping[str, Command]) -> int:
    """Run the command in ``sys.argv`` and return the exit code."""
    try:
        code = _run(program, commands)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has left, as `head` does; at exit, Python would complain once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(program: str, commands: Mapping[str, Command]) -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(program, commands), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print("\n".join(versions(program)))
        return 0
    if arguments[0] in ("--completion", "--complete"):
        from vdm.cli.manual.completion import run_completion

        return run_completion(program, list(commands), arguments)
    if arguments[0] not in commands:
        return _refuse(program, arguments[0], commands)
    if not set(FLAGS).isdisjoint(arguments):
        from vdm.cli.manual.call import print_help

        return print_help(program, arguments[0], [word for word in arguments[1:] if word not in FLAGS])
    from vdm.cli.hydra_main import hydra_command  # imports Hydra, which a list of commands does not need

    name, command = arguments[0], commands[arguments[0]]
    return hydra_command(name, lambda config: import_module(command.module).run(config), command.options_class())


def _help(program: str, commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in commands.items()]
    text = [f"usage: {program} COMMAND [KEY=VALUE ...]", "", *lines, ""]
    text += [
        f"{program} COMMAND --help     options of a command, with examples; --help all: everything",
        f"{program} --version          versions of this program, PyTorch and Python",
        f'eval "$({program} --completion bash)"     completion of commands, keys, choices and paths; also zsh, fish',
    ]
    return "\n".join(text)


def _refuse(program: str, word: str, commands: Mapping[str, Command]) -> int:
    from vdm.config import did_you_mean

    print(f"{program}: unknown command '{word}'{did_you_mean(word, commands)}", file=sys.stderr)
    return 2
