"""Whether training's memory grows: resident memory of the training process over 500 steps of a small run.

Run with ``make bench``, or ``python benchmarks/training_memory.py DATA`` for the shard set in DATA.
"""

import resource
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
from vdm.training.training_run import build_training

NUM_STEPS = 500
WARM_UP_STEPS = 50
SMALL = (
    "model.network.channels=[16,32]",
    "model.network.head_channels=16",
    "data.global_batch_size=4",
    "data.micro_batch_size=4",
)


def resident_mib() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class RecordMemory(Callback):
    """Notes the resident memory every 50 steps."""

    def __init__(self) -> None:
        self.mib: dict[int, float] = {}

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: object) -> None:
        """Note the memory."""
        if trainer.global_step % WARM_UP_STEPS == 0:
            self.mib[trainer.global_step] = resident_mib()


def main() -> None:
    """Print the memory over the steps, and its growth after warm-up."""
    data = sys.argv[1] if len(sys.argv) > 1 else "data/moving_digits"
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = ["experiment=moving_digits", f"data.path={data}", f"trainer.max_steps={NUM_STEPS}", *SMALL]
        composed = compose("train", [*overrides, "logger=csv", "callbacks.samples=null"])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    memory = RecordMemory()
    with tempfile.TemporaryDirectory() as folder:
        training = build_training(config, Path(folder))
        training.trainer.callbacks.append(memory)  # type: ignore[attr-defined]
        training.fit()
    for step, mib in memory.mib.items():
        print(f"after step {step:4d}  {mib:.0f} MiB")
    print(
        f"growth from step {WARM_UP_STEPS} to {NUM_STEPS}: {memory.mib[NUM_STEPS] - memory.mib[WARM_UP_STEPS]:+.0f} MiB"
    )


if __name__ == "__main__":
    main()
