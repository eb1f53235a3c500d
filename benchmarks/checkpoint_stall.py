"""How long training waits for a checkpoint: for the copy to memory alone, or until it is on the disk.

Prints the median of each and their ratio; the two are measured in turns, on the same weights and the same disk.

    python benchmarks/checkpoint_stall.py [MILLIONS_OF_WEIGHTS] [FOLDER]
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.figures import Figure, record
from vdm.checkpoints.pieces import Piece
from vdm.checkpoints.snapshot import EMA, OPTIMIZER, WEIGHTS
from vdm.checkpoints.writer import CheckpointWriter

NUM_PAIRS = 5
TENSOR_SIZE = 1 << 20


def pieces_of(num_weights: int) -> dict[str, dict[str, Piece]]:
    """Return weights, averages and Adam's two moments, in tensors of about a million elements."""

    def tensors(prefix: str = "") -> dict[str, Piece]:
        number = max(1, num_weights // TENSOR_SIZE)
        return {f"{prefix}layer.{i}.weight": Piece.whole(torch.randn(TENSOR_SIZE)) for i in range(number)}

    return {WEIGHTS: tensors(), EMA: tensors(), OPTIMIZER: tensors("exp_avg/") | tensors("exp_avg_sq/")}


def stall(writer: CheckpointWriter, pieces: dict[str, dict[str, Piece]], folder: Path, wait: bool) -> float:
    """Return for how many seconds the training loop would stand still."""
    begin = time.perf_counter()
    writer.start(folder, pieces, {"global_step": 1})
    if wait:
        writer.finish()
    seconds = time.perf_counter() - begin
    writer.finish()
    shutil.rmtree(folder)
    return seconds


def main() -> None:
    """Measure and print."""
    num_weights = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 30_000_000
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else "."))
    pieces, writer = pieces_of(num_weights), CheckpointWriter()
    stall(writer, pieces, folder / "first", wait=True)  # the first one has to be given its memory
    pairs = [[stall(writer, pieces, folder / f"{i}", wait) for wait in (False, True)] for i in range(NUM_PAIRS)]
    shutil.rmtree(folder)
    background, synchronous = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    print(f"{num_weights / 1e6:.0f} M weights, {16 * num_weights / 2**30:.2f} GiB a checkpoint")
    case = f"{num_weights / 1e6:.0f} M weights"
    times = background * 1000, synchronous * 1000
    record(Figure("checkpoint_stall", case, "ms, against synchronous", *times, background / synchronous))


if __name__ == "__main__":
    main()
