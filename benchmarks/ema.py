"""Cost of EMA weights: time of an update, memory, and the rounding error of fp16 snapshots.

python benchmarks/ema.py [MILLIONS_OF_WEIGHTS]
"""

import statistics
import sys
import time

import torch

from vdm.training.ema import EMA
from vdm.training.power_functions import PowerFunction, reconstruct

TENSOR_SIZE = 1 << 20
NUM_ROUNDS = 7
KINDS = {
    "one half-life": EMA([110_000]),
    "three half-lives": EMA([10_000, 100_000, 1_000_000]),
    "averages=post_hoc": EMA([110_000], sigma_rels=[0.05, 0.1]),
}


def main() -> None:
    """Print time and memory of each kind, and the error that fp16 adds to a reconstruction."""
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 50
    weights = {str(i): torch.randn(TENSOR_SIZE) for i in range(int(millions * 1e6) // TENSOR_SIZE)}
    size = sum(weight.nbytes for weight in weights.values())
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for name, ema in KINDS.items():  # one after another, to need the memory of only one
        ema.follow(weights, clips_per_step=16)
        for _ in range(NUM_ROUNDS):
            begin = time.perf_counter()
            ema.update()
            times[name].append(time.perf_counter() - begin)
        kept = sum(weight.nbytes for of_kind in ema.weights.values() for weight in of_kind.values())
        milliseconds = 1e3 * statistics.median(times[name])
        print(f"{name:18} {milliseconds:6.1f} ms a step, {kept / size:.0f} x the weights' {size / 2**20:.0f} MiB")
        ema.weights = {}
    print_rounding()


def print_rounding() -> None:
    """Print the error that rounding 20 pairs of snapshots to fp16 adds to a post-hoc EMA."""
    sources = [PowerFunction(sigma_rel, step) for step in range(50, 1001, 50) for sigma_rel in (0.05, 0.1)]
    saved = [torch.randn(10_000, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(40)]
    for sigma_rel in (0.03, 0.07, 0.15, 0.25):
        shares = reconstruct(PowerFunction(sigma_rel, 1000), sources).shares
        added = sum(share * (one.half().double() - one) for share, one in zip(shares, saved, strict=True))
        assert isinstance(added, torch.Tensor)
        print(f"sigma_rel={sigma_rel}: fp16 adds an error of {added.std():.1e} of the weights' deviation")


if __name__ == "__main__":
    main()
