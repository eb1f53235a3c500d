"""Run as one of several processes, this trains one run on under one strategy after another.

``python -m tests.training.stages SHARDS RUN PROCESSES STAGE ...`` with stages such as ``fsdp2 3``: under fsdp2 up to
step 3. Overrides of the configuration may follow: ``fsdp2 3 strategy.offload=true``; ``without=model.,text_encoder.``
leaves out those of ``TINY`` that begin so.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.training.zygote import Zygote, free_port

ADAMW = ("+optimizer.eps=1e-3", "trainer.gradient_clip_val=0.01", "lr_schedule=warmup_constant")
"""With so large an eps, Adam does not divide gradients near zero by their own size, which would enlarge rounding errors
to the size of a step."""
MICRO_BATCHES = ("data.global_batch_size=5", "data.micro_batch_size=2")
"""Two micro-batches of unequal size in each of two processes."""


def train_in_processes(
    shards: Path, run: Path, *stages: str, num_processes: int = 2, zygote: Zygote | None = None
) -> None:
    """Train in as many processes, forked by ``zygote`` if it is given, and else started anew, as GPUs want them.

    Raises:
        AssertionError: If a process fails.
    """
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    ranks = [variables | {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes)} for rank in range(num_processes)]
    argv = [str(shards), str(run), str(num_processes), *stages]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(num_processes)]
        if zygote is None:
            codes = _codes_of_new_processes(argv, ranks, logs)
        else:
            pids = [zygote.start(argv, rank, log, module=__name__) for rank, log in zip(ranks, logs, strict=True)]
            codes = zygote.wait(pids, timeout=600)
        assert not any(codes), "\n".join(log.read_text() for log in logs)


def _codes_of_new_processes(argv: Sequence[str], ranks: Sequence[Mapping[str, str]], logs: Sequence[Path]) -> list[int]:
    processes: list[subprocess.Popen[bytes]] = []
    for rank, log in zip(ranks, logs, strict=True):
        with log.open("w") as errors:
            command = [sys.executable, "-m", __name__, *argv]
            processes.append(subprocess.Popen(command, env={**os.environ, **rank}, stderr=errors))
    return [process.wait(600) for process in processes]


def resumed(run: Path) -> dict[str, Any]:
    """Return what ``vdm train resume=RUN`` takes from the run: the model as it was built, which is not read again."""
    from vdm.checkpoints.run_record import load_config

    recorded = load_config(run)
    return {"resume": str(run), **{key: recorded[key] for key in ("model", "encoder", "diffusion")}}


def main() -> None:
    """Train as the command line says."""
    shards, run, num_processes, *stages = sys.argv[1:]
    _train(Path(shards), Path(run), num_processes, stages)


def _train(shards: Path, run: Path, num_processes: str, stages: Sequence[str]) -> None:
    from tests.training.runs import configuration, train  # heavy, and not needed where processes are started

    for stage in stages:
        name, steps, *further = stage.split()
        overrides = [one for one in further if not one.startswith("without=")]
        without = [one.removeprefix("without=") for one in further if one.startswith("without=")]
        config = configuration(
            shards,
            *ADAMW,
            *MICRO_BATCHES,
            f"strategy={name}",
            f"trainer.devices={num_processes}",
            f"trainer.max_steps={steps}",
            *([] if name == "auto" else ["strategy.process_group_backend=gloo"]),
            *overrides,
            without=(
                *(("model.network",) if any(o.startswith("model=") for o in overrides) else ()),  # keys of another one
                *(",".join(without).split(",") if without else ()),
            ),
        )
        resume = (run / "checkpoints").is_dir()
        train(run, {**config, **resumed(run)} if resume else config, resume)


if __name__ == "__main__":
    main()
