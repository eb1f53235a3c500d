"""The framework against a bare PyTorch loop of the same model and data; two processes against one; memory by strategy.

    python benchmarks/trainer.py SHARDS [overhead scaling start_up memory]     # all of them unless some are named

overhead   Time of a step, framework over bare loop: median of 10 pairs in turns in one process, with the interval from
           the second smallest to the second largest, which holds the median with 97.9% confidence.
scaling    Clips per second of two processes (DDP, gloo) over twice those of one; each is held to a core of its own,
           with the worker that loads for it.
start_up   Seconds from the start of the process to the end of the first step, framework less bare loop.
memory     Bytes of weights, gradients, optimizer's state and averages in each of two processes, over DDP's.

The bare loop reads the same loader, draws noise by ``torch.randn``, clips the gradient, steps the same optimizer and
keeps an average of the weights; it logs, saves and checks nothing. For start_up it opens no data set either.
"""

import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, record

STARTED = time.time()

MODEL = ("experiment=moving_digits", "logger=csv", "callbacks.samples=null", "data.max_validation_clips=0")
WARM_UP_STEPS, TIMED_STEPS = 4, 12
NUM_PAIRS, STEPS_OF_A_PAIR = 10, 6
STRATEGIES = ("ddp", "fsdp2", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3")


def configuration(shards: str, *overrides: str) -> dict[str, Any]:
    """Compose a training run that does nothing but train."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from vdm.cli.run_folder import register_run_folder
    from vdm.config.conf_dir import conf_dir

    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", [f"data.path={shards}", "trainer.accelerator=cpu", *MODEL, *overrides])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return plain


class Clock:
    """Notes when each step begins and ends.

    Args:
        between: Called between two steps.
    """

    def __init__(self, between: Callable[[], object] = lambda: None) -> None:
        self.between = between
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.bytes = 0

    def step_ended(self, trainer: Any, *args: object) -> None:
        """Note the time, before and after what is done between two steps."""
        self.ends.append(time.time())
        self.between()
        self.begins.append(time.time())

    def gradients_are_there(self, trainer: Any, *args: object) -> None:
        """Note the memory of the last step, when everything is there that is ever there at once."""
        if trainer.global_step == trainer.max_steps - 1:
            self.bytes = tensor_bytes()

    @property
    def seconds(self) -> list[float]:
        """Duration of each step but the first."""
        return [end - begin for begin, end in zip(self.begins, self.ends[1:], strict=False)]


def framework(config: dict[str, Any], clock: Clock) -> None:
    """Train, and have the clock note the steps."""
    from lightning.pytorch.callbacks import LambdaCallback

    from vdm.training.training_run import build_training

    with tempfile.TemporaryDirectory() as folder:
        training = build_training(config, Path(folder))
        watch = LambdaCallback(on_train_batch_end=clock.step_ended, on_before_optimizer_step=clock.gradients_are_there)
        training.trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        training.fit()


def bare(config: dict[str, Any], clips: Iterable[tuple[Any, Sequence[str]]]) -> Iterator[None]:
    """Train by a loop, a step at each call, on videos and captions."""
    import torch

    from vdm.assembly.build_model import build_model
    from vdm.config import build

    model = build_model(config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    averages = [weight.detach().clone() for weight in weights]
    optimizer = build(config["optimizer"], "optimizer")(weights)
    for video, captions in clips:
        x0 = model.encoder.encode(video)
        loss = model.denoising_loss(x0, torch.randn_like(x0), torch.rand(len(x0)), model.prompts(captions)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 0.01)  # pyright: ignore[reportPrivateImportUsage]
        yield


def overhead(shards: str) -> None:
    """Print how much longer a step of the framework takes."""
    from vdm.config import build

    num_steps = WARM_UP_STEPS + NUM_PAIRS * STEPS_OF_A_PAIR
    config = configuration(shards, "trainer.devices=1", f"trainer.max_steps={num_steps + 1}")
    data = build(config["data"], "data")
    loop = bare(config, ((batch.video, batch.captions) for batch in data.train_dataloader()))
    bare_seconds: list[float] = []

    def bare_step() -> None:
        begin = time.time()
        next(loop)
        bare_seconds.append(time.time() - begin)

    clock = Clock(between=bare_step)
    framework(config, clock)
    data.close()
    # A pair is so many steps of each, in turns: whatever else the machine does meanwhile falls on both alike.
    ours, theirs = (
        [
            sum(seconds[first : first + STEPS_OF_A_PAIR]) / STEPS_OF_A_PAIR
            for first in range(WARM_UP_STEPS, num_steps, STEPS_OF_A_PAIR)
        ]
        for seconds in (clock.seconds, bare_seconds)
    )
    ratios = sorted(our_time / their_time for our_time, their_time in zip(ours, theirs, strict=False))
    medians = [statistics.median(seconds) * 1e3 for seconds in (ours, theirs)]
    record(Figure("trainer", "against a bare loop", "ms a step", *medians, statistics.median(ratios), "<= 1.02"))
    print(f"framework    [{ratios[1] - 1:+.1%}, {ratios[-2] - 1:+.1%}]", flush=True)


def scaling(shards: str) -> None:
    """Print the throughput of two processes over twice that of one."""
    ratios = []
    for pair in range(4):
        per_second = {}
        for num_processes in (1, 2) if pair % 2 else (2, 1):
            overrides = (f"data.global_batch_size={8 * num_processes}", "strategy=ddp")
            steps = f"trainer.max_steps={WARM_UP_STEPS + TIMED_STEPS}"
            found = in_processes(shards, num_processes, steps, *overrides, pinned=True)
            per_second[num_processes] = num_processes / max(sum(one["seconds"][WARM_UP_STEPS:]) for one in found)
        ratios.append(per_second[2] / (2 * per_second[1]))
    record(Figure("trainer", "2 processes, ddp", "clips a second over twice 1's", statistics.median(ratios)))
    print(f"scaling      [{min(ratios):.2f}, {max(ratios):.2f}]", flush=True)


def start_up(shards: str) -> None:
    """Print how much later the framework ends its first step."""
    differences = []
    for _ in range(3):
        ours = in_processes(shards, 1, "trainer.max_steps=1")[0]["first_step"]
        differences.append(ours - in_processes(shards, 1, "trainer.max_steps=1", bare_loop=True)[0]["first_step"])
    record(Figure("trainer", "against a bare loop", "s later to the first step", statistics.median(differences)))


def memory(shards: str) -> None:
    """Print the memory of each process under each strategy."""
    first = None
    for strategy in STRATEGIES:
        overrides = ("data.global_batch_size=4", f"strategy={strategy}", "strategy.process_group_backend=gloo")
        found = in_processes(shards, 2, "trainer.max_steps=3", *overrides)
        size = max(one["bytes"] for one in found)
        first = first or size
        record(
            Figure("trainer", f"2 processes, {strategy}", "MiB a process", size / 2**20, first / 2**20, size / first)
        )


def tensor_bytes() -> int:
    """Return the memory of all tensors of this process: weights, gradients, moments and averages."""
    import torch

    gc.collect()
    tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum({one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in local}.values())


def in_processes(
    shards: str, num_processes: int, *overrides: str, bare_loop: bool = False, pinned: bool = False
) -> list[dict[str, Any]]:
    """Train in processes of their own, with a thread each, and return what each measured.

    Args:
        shards: Folder of the data set.
        num_processes: How many.
        overrides: Of the configuration.
        bare_loop: Whether the bare loop trains rather than the framework.
        pinned: Whether each process, with its loader's worker, is held to a core of its own.
    """
    cores = sorted(os.sched_getaffinity(0))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kind = "bare" if bare_loop else "framework"
    command = [sys.executable, __file__, f"--{kind}", shards, f"trainer.devices={num_processes}", *overrides]
    held = [["taskset", "--cpu-list", str(cores[rank])] if pinned else [] for rank in range(num_processes)]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes), "NODE_RANK": "0"}
    processes = [
        subprocess.Popen(
            [*held[rank], *command],
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
    if kind == "bare":
        import torch

        next(bare(config, [(torch.zeros(8, 3, 8, 32, 32, dtype=torch.uint8), ["the digit three moves up"] * 8)]))
        return {"first_step": time.time() - STARTED}
    clock = Clock()
    framework(config, clock)
    return {"first_step": clock.ends[0] - STARTED, "seconds": clock.seconds, "bytes": clock.bytes}


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
