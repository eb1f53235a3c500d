"""Memory that a process takes to begin with published weights: its peak until training starts, over their size.

Run with ``make bench``, or ``python benchmarks/loading_memory.py DATA`` for the shard set in DATA. A network of 100 M
random weights is saved in a safetensors file, and trained by two processes over gloo.
"""

import gc
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from safetensors.torch import save_file

from vdm.assembly.build_model import build_model
from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors
from vdm.training.training_run import build_training

STRATEGIES = ("ddp", "fsdp2")
NETWORK = (
    "model=dit_small",
    "model.network.num_layers=6",
    "model.network.num_heads=16",
    "model.network.head_channels=64",
    "model.network.hidden_channels=4096",
    "diffusion=rectified_flow",
    "+model.readers.folder={_target_:loading_memory.open_network,_partial_:true}",
    "+model.variant=null",
)
_FILE = "network.safetensors"
_MIB = 2**20


def open_network(folder: Path, name: str, variant: str | None) -> Published:
    """Open the saved network; it brings no settings."""
    return Published(StoredTensors.open([folder / _FILE]), {})


class PeakAtStart(Callback):
    """Prints how much memory this process took at most before training, and ends it."""

    def __init__(self, before: int) -> None:
        self.before = before

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the memory once all processes have come here."""
        print(memory("VmHWM") - self.before, flush=True)
        trainer.strategy.barrier()
        os._exit(0)


def memory(name: str) -> int:
    """Return an entry of this process's memory, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def configuration(shards: str, *overrides: str) -> dict[str, Any]:
    """Compose a run of the network in two processes."""
    register_run_folder()
    quiet = ("logger=csv", "callbacks.samples=null", "callbacks.progress=null", "data.num_workers=0")
    common = (f"data.path={shards}", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=1")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", [*common, *quiet, *NETWORK, *overrides])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return plain


def begin(shards: str, published: str, strategy: str) -> None:
    """Begin to train, in this process as one of two, and print the memory."""
    config = configuration(shards, f"+model.pretrained={published}", f"strategy={strategy}")
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
    training = build_training(config, Path(published) / strategy)
    training.trainer.callbacks.insert(0, PeakAtStart(before))  # type: ignore[attr-defined]  # Lightning does not declare it
    training.fit()


def begin_in_two(shards: str, published: str, strategy: str) -> list[int]:
    """Return the memory of each of two processes, in bytes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    common |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--one", shards, published, strategy]
    started = [
        subprocess.Popen(command, env={**os.environ, **common, "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in (0, 1)
    ]
    return [int(process.communicate()[0].split()[-1]) for process in started]


def main() -> None:
    """Print the memory under each strategy."""
    if sys.argv[1:2] == ["--one"]:
        begin(*sys.argv[2:])
        return
    shards = sys.argv[1] if len(sys.argv) > 1 else "data/moving_digits"
    weights = build_model(configuration(shards)).network.state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    largest = max(tensor.numel() * tensor.element_size() for tensor in weights.values())
    print(f"published weights: {size / _MIB:.0f} MiB, the largest {largest / _MIB:.0f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: torch.randn_like(tensor) for name, tensor in weights.items()}, Path(folder) / _FILE)
        del weights
        for strategy in STRATEGIES:
            taken = begin_in_two(shards, folder, strategy)
            shares = ", ".join(f"{one / _MIB:.0f} MiB ({one / size:.2f} of them)" for one in taken)
            print(f"{strategy:6} at most {shares}", flush=True)


if __name__ == "__main__":
    main()
