"""The console script ``vdm-data``."""

import os
import re
import sys

from vdm.cli.commands import Command, run_program
from vdm.cli.manual import FLAGS
from vdm.logs import quieten_libraries
from vdm.processes import forget_other_launches, keep_current_folder_off_path

_OVERRIDE = re.compile(r"~|\+{0,2}([A-Za-z_][\w.]*|hydra/[\w./]+)=")
"""Start of an override, to tell it from a folder with a '=' in its name."""

COMMANDS = {
    "build": Command(
        "data_pipelines.build",
        "make shards of clips from a folder of videos, or of moving digits",
        "data_pipelines.settings:BuildSettings",
    ),
    "curate": Command(
        "data_pipelines.curate",
        "cut, filter, caption and encode raw videos, then make shards of them",
        "data_pipelines.curate_settings:CurateSettings",
    ),
    "index": Command(
        "data_pipelines.index",
        "make WebDatasets from elsewhere usable: vdm-data index FOLDER",
        "data_pipelines.set_settings:IndexSettings",
    ),
    "show": Command(
        "data_pipelines.show",
        "make a page to look at clips and captions: vdm-data show SHARDS",
        "data_pipelines.set_settings:ShowSettings",
    ),
    "verify": Command(
        "data_pipelines.verify",
        "check shards against their index: vdm-data verify SHARDS",
        "data_pipelines.set_settings:VerifySettings",
    ),
}


def main() -> None:
    """Run ``vdm-data COMMAND ...`` and exit."""
    keep_current_folder_off_path()
    forget_other_launches()  # left-over ranks would suppress its messages
    quieten_libraries(os.environ)
    if sys.argv[1:2] in (["index"], ["show"], ["verify"]) and set(FLAGS).isdisjoint(sys.argv):
        sys.argv = [*sys.argv[:2], *map(_named, sys.argv[2:])]
    sys.exit(run_program("vdm-data", COMMANDS))


def _named(argument: str) -> str:
    """Turn a bare folder into ``input=FOLDER``, with quotes around characters that mean something to Hydra."""
    if argument.startswith("-") or _OVERRIDE.match(argument):
        return argument
    from vdm.config.quoting import escaped, hydra_quoted  # imports pydantic, which the list of commands does not need

    return f"input={hydra_quoted(escaped(argument))}"


if __name__ == "__main__":
    main()
