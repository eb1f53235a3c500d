"""``vdm report``: one HTML page about one run or several, without PyTorch."""

from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vdm.cli.manual.versions import DISTRIBUTION
from vdm.cli.next_step import command
from vdm.cli.options.report import ReportOptions
from vdm.cli.reported_runs import reported_runs
from vdm.cli.run_status import status_of
from vdm.config.options import parse
from vdm.files import replacing
from vdm.report.page import About, Limits, page_of
from vdm.report.run import ReportedRun, read_run
from vdm.text import printable


def run(config: DictConfig) -> None:
    """Write the page, and print where it is and what it leaves out."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(ReportOptions, plain)
    runs = read_runs(options.paths)
    about = About(f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}", metadata.version(DISTRIBUTION))
    limits = Limits(int(options.max_megabytes * 1e6), options.max_videos)
    text, left_out = page_of(runs, {one.name: commands_of(one) for one in runs}, about, limits)
    page = options.page
    page.parent.mkdir(parents=True, exist_ok=True)
    with replacing(page) as file:
        file.write(text.encode())
    for said in left_out:
        print(printable(said))
    for one in runs:
        for fault in one.unreadable:
            print(printable(f"Not shown: {fault}"))
    about_runs = f"{len(runs)} runs" if len(runs) > 1 else f"the run {runs[0].name}"
    print(
        printable(f"A report of {about_runs} ({len(text) / 1e6:.1f} MB), to be opened in a browser: {page.absolute()}")
    )


def read_runs(paths: Sequence[Path]) -> list[ReportedRun]:
    """Read the runs at some paths, with the states that ``vdm runs`` tells of them.

    Raises:
        ValueError: In one line, if there are none, or the configuration of one can't be read.
    """
    runs: list[ReportedRun] = []
    for name, folder in reported_runs(paths).items():
        status = status_of(folder)
        runs.append(read_run(folder, name, status.state, status.reason))
    return runs


def commands_of(run: ReportedRun) -> list[tuple[str, str]]:
    """Return the commands by which to go on with a run, by what they do."""
    folder = Path(run.folder).absolute()
    if run.state == "training":
        further = []
    elif run.state == "finished":
        further = [("train on", command("vdm train", resume=folder, trainer__max_steps=str(2 * max(1, run.step))))]
    else:
        further = [("continue", command("vdm train", resume=folder))]
    return [
        *further,
        ("sample", command("vdm sample", checkpoint=folder)),
        ("evaluate", command("vdm evaluate", checkpoint=folder)),
        ("report", command("vdm report", run=folder)),
    ]
