"""A console script with sub-commands: finds the command, and imports nothing that another command needs."""

import sys
from collections.abc import Mapping
from importlib import import_module, metadata
from typing import NamedTuple

from vdm.cli.options.base import CommandOptions


class Command(NamedTuple):
    """One word after the program's name; ``conf/NAME.yaml`` is its configuration."""

    module: str
    """Module with ``run(config: DictConfig) -> int | None``, imported when a configuration is ready to run."""
    summary: str
    """One line for the list of commands."""
    options: str | None = None
    """``MODULE:CLASS`` of what it can be told: a dataclass, imported with nothing heavy, to check the command line."""

    def options_class(self) -> type[CommandOptions] | None:
        """Import the class of its options."""
        if self.options is None:
            return None
        module, _, name = self.options.partition(":")
        return getattr(import_module(module), name)


def run_program(program: str, commands: Mapping[str, Command]) -> int:
    """Run what ``sys.argv`` asks for and return the exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(program, commands), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(program, metadata.version("video-diffusion-training"))
        return 0
    if arguments[0] not in commands:
        return _refuse(program, arguments[0], commands)
    from vdm.cli.hydra_main import hydra_command  # imports Hydra, which a list of commands does not need

    name, command = arguments[0], commands[arguments[0]]
    return hydra_command(name, lambda config: import_module(command.module).run(config), command.options_class())


def _help(program: str, commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in commands.items()]
    text = [f"usage: {program} COMMAND [KEY=VALUE ...]", "", *lines, ""]
    text += [f"{program} COMMAND --help shows a command's configuration; {program} --version the version."]
    return "\n".join(text)


def _refuse(program: str, word: str, commands: Mapping[str, Command]) -> int:
    from vdm.config import did_you_mean

    print(f"{program}: unknown command '{word}'{did_you_mean(word, commands)}", file=sys.stderr)
    return 2
