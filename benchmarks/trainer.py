"""The framework against a bare PyTorch loop of the same model and data; two processes against one; memory by strategy.

    python benchmarks/trainer.py SHARDS [overhead scaling start_up memory]     # all of them unless some are named

overhead   Time of a step, framework over bare loop: median of 10 pairs in turns in one process, with the interval from
           the second smallest to the second largest, which holds the median with 97.9% confidence.
scaling    Clips per second of two processes (DDP, gloo, one core each) over twice those of one process of one core.
start_up   Seconds from the start of the process to the end of the first step, framework less bare loop.
memory     Bytes of weights, gradients, optimizer's state and averages in each of two processes, over DDP's.

The bare loop reads the same loader, draws noise by ``torch.randn``, clips the gradient, steps the same optimizer and
keeps an average of the weights; it logs, saves and checks nothing.
"""

import gc
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.time()

MODEL = ("experiment=moving_digits", "logger=csv", "callbacks.samples=null", "data.max_validation_clips=0")
WARM_UP_STEPS, TIMED_STEPS = 4, 12
NUM_PAIRS = 10
STRATEGIES = ("ddp", "fsdp2", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3")


def configuration(shards: str, *overrides: str) -> dict[str, Any]:
    """Compose a training run that does nothing but train."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from vdm.cli.conf_dir import conf_dir
    from vdm.cli.run_folder import register_run_folder

    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", [f"data.path={shards}", "trainer.accelerator=cpu", *MODEL, *overrides])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return plain


def framework(config: dict[str, Any], at_end: Callable[[Any], Any] = lambda module: None) -> tuple[list[float], Any]:
    """Train, and return when each step ended, and what ``at_end`` makes of the module after the last."""
    from lightning.pytorch.callbacks import Callback

    from vdm.training.build import build_training

    ends: list[float] = []
    made: list[Any] = []

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: object) -> None:
            ends.append(time.time())
            if trainer.global_step == trainer.max_steps:
                made.append(at_end(pl_module))

    with tempfile.TemporaryDirectory() as folder:
        training = build_training(config, Path(folder))
        training.trainer.callbacks.append(Clock())  # type: ignore[attr-defined]
        training.trainer.fit(training.module, datamodule=training.data)
    return ends, made[0]


def bare(config: dict[str, Any]) -> list[float]:
    """Train by a loop, and return when each step ended."""
    import torch

    from vdm.config import build
    from vdm.generation.build import build_model

    model = build_model(config)
    data = build(config["data"], "data")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    averages = [weight.detach().clone() for weight in weights]
    optimizer = build(config["optimizer"], "optimizer")(weights)
    ends: list[float] = []
    for step, batch in enumerate(data.train_dataloader(), 1):
        x0 = model.encoder.encode(batch.video)
        loss = model.denoising_loss(x0, torch.randn_like(x0), torch.rand(len(x0)), model.prompts(batch.captions)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 0.01)  # pyright: ignore[reportPrivateImportUsage]
        ends.append(time.time())
        if step == config["trainer"]["max_steps"]:
            break
    data.close()
    return ends


def seconds_a_step(ends: list[float]) -> float:
    """Return the mean time of the steps after warm-up."""
    return (ends[-1] - ends[WARM_UP_STEPS - 1]) / (len(ends) - WARM_UP_STEPS)


def overhead(shards: str) -> None:
    """Print how much longer a step of the framework takes."""
    config = configuration(shards, "trainer.devices=1", f"trainer.max_steps={WARM_UP_STEPS + TIMED_STEPS}")
    runs = {"framework": lambda: framework(config)[0], "bare loop": lambda: bare(config)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for pair in range(NUM_PAIRS + 1):
        for name in list(runs)[:: 1 if pair % 2 else -1]:
            seconds = seconds_a_step(runs[name]())
            if pair > 0:  # the first pair loads whatever is loaded on first use
                times[name].append(seconds)
    ratios = sorted(ours / bare_time for ours, bare_time in zip(*times.values(), strict=True))
    for name, seconds in times.items():
        print(f"{name:12} {statistics.median(seconds) * 1e3:7.1f} ms a step")
    print(
        f"framework    {statistics.median(ratios) - 1:+.1%} [{ratios[1] - 1:+.1%}, {ratios[-2] - 1:+.1%}]", flush=True
    )


def scaling(shards: str) -> None:
    """Print the throughput of two processes over twice that of one."""
    ratios = []
    for pair in range(4):
        per_second = {}
        for num_processes in (1, 2) if pair % 2 else (2, 1):
            overrides = (f"data.global_batch_size={8 * num_processes}", "strategy=ddp")
            found = in_processes(shards, num_processes, f"trainer.max_steps={WARM_UP_STEPS + TIMED_STEPS}", *overrides)
            per_second[num_processes] = num_processes / max(seconds_a_step(one["ends"]) for one in found)
        ratios.append(per_second[2] / (2 * per_second[1]))
    print(f"scaling      {statistics.median(ratios):.2f} of perfect [{min(ratios):.2f}, {max(ratios):.2f}]", flush=True)


def start_up(shards: str) -> None:
    """Print how much later the framework ends its first step."""
    differences = []
    for _ in range(3):
        ours = in_processes(shards, 1, "trainer.max_steps=1")[0]["first_step"]
        differences.append(ours - in_processes(shards, 1, "trainer.max_steps=1", bare_loop=True)[0]["first_step"])
    print(f"start-up     {statistics.median(differences):+.1f} s to the first step, over the bare loop's", flush=True)


def memory(shards: str) -> None:
    """Print the memory of each process under each strategy."""
    first = None
    for strategy in STRATEGIES:
        overrides = ("data.global_batch_size=4", f"strategy={strategy}", "strategy.process_group_backend=gloo")
        found = in_processes(shards, 2, "trainer.max_steps=3", *overrides)
        size = max(one["bytes"] for one in found)
        first = first or size
        print(f"{strategy:16} {size / 2**20:6.1f} MiB a process, {size / first:.2f} of ddp's", flush=True)


def tensor_bytes(module: Any) -> int:
    """Return the memory of all tensors of this process after a step: weights, gradients, moments and averages."""
    import torch

    gc.collect()
    tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum({one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in local}.values())


def in_processes(shards: str, num_processes: int, *overrides: str, bare_loop: bool = False) -> list[dict[str, Any]]:
    """Train in processes of their own, of one core each, and return what each measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kind = "bare" if bare_loop else "framework"
    command = [sys.executable, __file__, f"--{kind}", shards, f"trainer.devices={num_processes}", *overrides]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes), "NODE_RANK": "0"}
    processes = [
        subprocess.Popen(
            command,
            env=os.environ
            | {"OMP_NUM_THREADS": "1"}
            | (group | {"LOCAL_RANK": str(rank)} if num_processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_processes)
    ]
    said = [process.communicate() for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("\n".join(errors for _, errors in said))
    return [json.loads(output.splitlines()[-1]) for output, _ in said]


def measure(kind: str, shards: str, *overrides: str) -> dict[str, Any]:
    """Train in this process, and return what was measured."""
    config = configuration(shards, *overrides)
    ends, size = (bare(config), math.nan) if kind == "bare" else framework(config, tensor_bytes)
    return {"ends": ends, "first_step": ends[0] - STARTED, "bytes": size}


def main() -> None:
    """Run the parts that are asked for."""
    if sys.argv[1:] and sys.argv[1].startswith("--"):
        print(json.dumps(measure(sys.argv[1].removeprefix("--"), *sys.argv[2:])))
        return
    shards, *parts = sys.argv[1:] or ["data/moving_digits"]
    every = {"overhead": overhead, "scaling": scaling, "start_up": start_up, "memory": memory}
    for part in parts or every:
        every[part](shards)


if __name__ == "__main__":
    main()
