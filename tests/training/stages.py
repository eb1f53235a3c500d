"""Run as one of several processes, this trains one run on under one strategy after another.

``python -m tests.training.stages SHARDS RUN PROCESSES STAGE ...`` with stages such as ``fsdp2 3``: under fsdp2 up to
step 3. Overrides of the configuration may follow: ``fsdp2 3 strategy.offload=true``.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

ADAMW = ("+optimizer.eps=1e-3", "trainer.gradient_clip_val=0.01", "lr_schedule=warmup_constant")
"""With so large an eps, Adam does not divide gradients near zero by their own size, which would enlarge rounding errors
to the size of a step."""
MICRO_BATCHES = ("data.global_batch_size=5", "data.micro_batch_size=2")
"""Two micro-batches of unequal size in each of two processes."""


def train_in_processes(shards: Path, run: Path, *stages: str, num_processes: int = 2) -> list[str]:
    """Train in as many processes, and return what each wrote to stderr.

    Raises:
        AssertionError: If a process fails.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.stages", str(shards), str(run), str(num_processes), *stages]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | variables | {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_processes)
    ]
    messages = [process.communicate(timeout=600)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(messages)
    return messages


def _main(shards: str, run: str, num_processes: str, *stages: str) -> None:
    from tests.training.runs import configuration, train

    for stage in stages:
        name, steps, *overrides = stage.split()
        config = configuration(
            Path(shards),
            *ADAMW,
            *MICRO_BATCHES,
            f"strategy={name}",
            f"trainer.devices={num_processes}",
            f"trainer.max_steps={steps}",
            *([] if name == "auto" else ["strategy.process_group_backend=gloo"]),
            *overrides,
        )
        train(Path(run), config, resume=(Path(run) / "checkpoints").is_dir())


if __name__ == "__main__":
    _main(*sys.argv[1:])
