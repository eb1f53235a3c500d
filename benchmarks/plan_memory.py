"""How near the memory that ``vdm plan`` foretells comes to the memory that training takes, on this machine's CPU.

A process of its own trains three steps; its peak of resident memory, above what it took before the model was built, is
compared with the plan's. Memory that is let go is returned to the system at once (``MALLOC_MMAP_THRESHOLD_``), so that
the peak is that of what is in use.

    python benchmarks/plan_memory.py SHARDS [OVERRIDES ...]     # the shipped models, or what the overrides say

The shard set's clips decide the size of clips.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir
from vdm.training.ema import count_emas
from vdm.training.planning.sharding import memory_of, single
from vdm.training.planning.step import Clips, measure_step
from vdm.training.training_run import build_training
from vdm.types import ClipSize

MODELS = {
    "unet_tiny": ("experiment=moving_digits",),
    "unet_small": ("data.global_batch_size=8", "data.micro_batch_size=8"),
    "unet_small, recomputed": ("data.global_batch_size=16", "data.micro_batch_size=16", "blocks.recompute=all"),
    "unet_small, 4 micro-batches": ("data.global_batch_size=32", "data.micro_batch_size=8"),
    "svd_tiny": ("experiment=svd_digits",),
    "unet_base": ("model=unet_base", "data.global_batch_size=1", "data.micro_batch_size=1"),
}
NUM_STEPS = 3
WARM_UP = ("data.global_batch_size=1", "data.micro_batch_size=1", "trainer.max_steps=1")
_MIB = 2**20


class PeakAfterSteps(Callback):
    """Notes the highest resident memory of the first steps, before the end of training copies all to be saved."""

    def __init__(self) -> None:
        self.bytes = 0

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: object) -> None:
        """Note the memory."""
        if trainer.global_step == NUM_STEPS:
            self.bytes = memory("VmHWM")


def memory(name: str) -> int:
    """Return an entry of this process's memory, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def configuration(shards: str, *overrides: str) -> dict[str, Any]:
    """Compose a training run that does nothing but train."""
    register_run_folder()
    quiet = ("logger=csv", "callbacks.samples=null", "callbacks.progress=null", "data.max_validation_clips=0")
    common = (f"data.path={shards}", "trainer.accelerator=cpu", "trainer.devices=1", f"trainer.max_steps={NUM_STEPS}")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", [*common, *quiet, *overrides])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return plain


def train(config: dict[str, Any]) -> int:
    """Train, and return the peak of resident memory."""
    peak = PeakAfterSteps()
    with tempfile.TemporaryDirectory() as folder:
        training = build_training(config, Path(folder))
        training.trainer.callbacks.append(peak)  # type: ignore[attr-defined]
        training.fit()
    return peak.bytes


def measure(shards: str, *overrides: str) -> tuple[int, int]:
    """Return the bytes that training takes, and those that are planned, in this process."""
    train(configuration(shards, *overrides, *WARM_UP))  # loads whatever code is loaded on first use
    config = configuration(shards, *overrides)
    data = build_training(config, Path()).data
    clips = Clips(config["data"]["micro_batch_size"], ClipSize(*data.clip_shape), caption="x" * 40)
    step = measure_step(config, clips)
    several = config["data"]["global_batch_size"] > config["data"]["micro_batch_size"]
    planned = memory_of(single(), step, count_emas(config["averages"]), several).peak
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
    return train(config) - before, planned


def measure_apart(shards: str, *overrides: str) -> tuple[int, int]:
    """Do what ``measure`` does in a process of its own."""
    command = [sys.executable, __file__, "--one", shards, *overrides]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    measured, planned = json.loads(done.stdout.splitlines()[-1])
    return measured, planned


def main() -> None:
    """Print what is planned and what is taken."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:])))
        return
    shards, *overrides = sys.argv[1:] or ["data/moving_digits"]
    for name, of_model in {" ".join(overrides): overrides}.items() if overrides else MODELS.items():
        measured, planned = measure_apart(shards, *of_model)
        figures = f"planned {planned / _MIB:7.0f} MiB, taken {measured / _MIB:7.0f} MiB: {planned / measured - 1:+.1%}"
        print(f"{name:30} {figures}", flush=True)


if __name__ == "__main__":
    main()
