"""The console script ``vdm-data``."""

import sys

from vdm.cli.commands import Command, run_program
from vdm.processes import forget_other_launches

COMMANDS = {
    "build": Command("data_pipelines.build", "make shards of clips from a folder of videos, or of moving digits"),
    "curate": Command("data_pipelines.curate", "cut, filter, caption and encode raw videos, then make shards of them"),
    "index": Command("data_pipelines.index", "make WebDatasets from elsewhere usable: vdm-data index FOLDER"),
    "show": Command("data_pipelines.show", "make a page to look at clips and captions: vdm-data show SHARDS"),
    "verify": Command("data_pipelines.verify", "check shards against their index: vdm-data verify SHARDS"),
}


def main() -> None:
    """Run ``vdm-data COMMAND ...`` and exit."""
    forget_other_launches()  # which would keep it from saying what is wrong
    if sys.argv[1:2] in (["index"], ["show"], ["verify"]):
        sys.argv = [*sys.argv[:2], *map(_named, sys.argv[2:])]
    sys.exit(run_program("vdm-data", COMMANDS))


def _named(argument: str) -> str:
    """Read a bare folder as ``input=FOLDER``, quoted for Hydra, which gives some characters a meaning."""
    if argument.startswith(("-", "hydra.", "hydra/")) or "=" in argument:
        return argument
    return "input='" + argument.replace("'", "\\'") + "'"


if __name__ == "__main__":
    main()
