"""All benchmarks that need no GPU and no run, in one go, and one table of their figures.

    python -m benchmarks.suite [--full] [--only NAME ...] [--output FOLDER]

Each runs in a process of its own. FOLDER gets what each printed, the figures (``figures.jsonl``), the table
(``figures.md``), and plots. ``make bench`` runs the short form, ``make bench-full`` all sizes. Speeds are ratios of
what is measured in turns in one process; nothing else should run on the machine meanwhile.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import figures

DIGITS = "data/moving_digits"
DATA = "{data}"
FOLDER = "{folder}"


@dataclass(frozen=True)
class Benchmark:
    """A module of ``benchmarks`` with the arguments of its short and of its full form; None where it is left out."""

    module: str
    short: tuple[str, ...] | None
    full: tuple[str, ...]


BENCHMARKS = (
    Benchmark("unet_peer", ("8x32x32",), ("8x32x32", "8x64x64", "16x64x64")),
    Benchmark("svd", ("small",), ("small", "base")),
    Benchmark("dit", ("small",), ("small", "wide", "long")),
    Benchmark("growth", None, ("--picture", f"{FOLDER}/growth.png")),
    Benchmark("training_step", (), ()),
    Benchmark("trainer", (DATA, "overhead"), (DATA,)),
    Benchmark("checkpoint_stall", (), ()),
    Benchmark("sampler_overhead", None, ()),
    Benchmark("noise_ahead", None, ()),
    Benchmark("ema", (), ()),
    Benchmark("data_loading", None, ()),
    Benchmark("training_memory", None, (DATA,)),
    Benchmark("loading_memory", None, ()),
)


def machine() -> str:
    """Return what the figures were measured on."""
    processor = platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        names = [line for line in cpus.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    versions = f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    return f"{processor}, {torch.get_num_threads()} threads, {versions}"


def run(benchmark: Benchmark, arguments: tuple[str, ...], folder: Path, data: str) -> bool:
    """Run a benchmark; what it prints is shown and kept. Return whether it ended well."""
    filled = [argument.format(data=data, folder=folder) for argument in arguments]
    command = [sys.executable, "-m", f"benchmarks.{benchmark.module}", *filled]
    environment = {**os.environ, figures.RECORD: str(folder / "figures.jsonl")}
    start = time.monotonic()
    print(f"== {benchmark.module} {' '.join(filled)}", flush=True)
    with (folder / f"{benchmark.module}.txt").open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
    print(f"   {time.monotonic() - start:.0f} s\n", flush=True)
    return process.wait() == 0


def main() -> None:
    """Run the benchmarks, and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all sizes: some 90 minutes on two cores")
    parser.add_argument("--only", nargs="+", choices=[each.module for each in BENCHMARKS], default=())
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    parser.add_argument("--data", default=DIGITS, help="shards of moving digits, made by make demo")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "figures.jsonl").write_text("")
    print(machine())
    failed = []
    for each in BENCHMARKS:
        arguments = each.full if given.full or (each.short is None and each.module in given.only) else each.short
        if arguments is None or (given.only and each.module not in given.only):
            continue
        if DATA in arguments and not Path(given.data).exists():
            print(f"== {each.module}: left out, as {given.data} is missing; make demo makes it\n")
            continue
        if not run(each, arguments, given.output, given.data):
            failed.append(each.module)
    table = f"{machine()}\n\n{figures.table(figures.read(given.output / 'figures.jsonl'))}"
    (given.output / "figures.md").write_text(table)
    print(table)
    print(f"All of it is in {given.output.resolve()}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
