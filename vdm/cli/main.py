"""The console script ``vdm``."""

import os
import sys

from vdm.cli.commands import Command, run_program
from vdm.logs import quieten_libraries
from vdm.processes import forget_other_launches, keep_current_folder_off_path
from vdm.training.slurm import hold_stop_signals

COMMANDS = {
    "train": Command(
        "vdm.cli.train", "train a model on a set of shards, or resume a run", "vdm.cli.options.train:TrainOptions"
    ),
    "check": Command(
        "vdm.cli.check",
        "rehearse a training run in a minute, and print what it will do",
        "vdm.cli.options.train:TrainOptions",
    ),
    "plan": Command(
        "vdm.cli.plan",
        "compute memory and work of a training run, before anything is rented",
        "vdm.cli.options.plan:PlanOptions",
    ),
    "dashboard": Command(
        "vdm.cli.dashboard", "lay out a workspace on W&B", "vdm.cli.options.dashboard:DashboardOptions"
    ),
    "runs": Command("vdm.cli.runs", "list the runs below a folder", "vdm.cli.options.runs:RunsOptions"),
    "sample": Command(
        "vdm.cli.sample", "make videos from prompts with a trained model", "vdm.cli.options.sample:SampleOptions"
    ),
    "demo": Command(
        "vdm.cli.demo.command", "open a page in the browser to make videos on", "vdm.cli.options.demo:DemoOptions"
    ),
    "evaluate": Command("vdm.cli.evaluate", "measure a trained model", "vdm.cli.options.evaluate:EvaluateOptions"),
    "report": Command(
        "vdm.cli.report",
        "write an HTML page about runs: curves, videos, metrics",
        "vdm.cli.options.report:ReportOptions",
    ),
    "ema": Command("vdm.cli.ema", "make EMA weights of any length after training", "vdm.cli.options.ema:EmaOptions"),
    "import": Command("vdm.cli.import_", "make a run from published weights", "vdm.cli.options.import_:ImportOptions"),
    "export": Command(
        "vdm.cli.export",
        "write a run's weights for others, such as users of diffusers",
        "vdm.cli.options.export:ExportOptions",
    ),
}


def main() -> None:
    """Run ``vdm COMMAND ...`` and exit."""
    keep_current_folder_off_path()
    forget_other_launches()  # before Lightning is imported
    if sys.argv[1:2] == ["train"]:
        hold_stop_signals()  # here, since imports take long
    quieten_libraries(os.environ)
    sys.exit(run_program("vdm", COMMANDS))


if __name__ == "__main__":
    main()
