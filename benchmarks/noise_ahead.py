"""How long a training step waits for its noise: drawn in the step, or by worker processes while the step before runs.

The step itself is simulated by sleeping, as if an accelerator did it. Prints the median wait of both, for clips of
several sizes; steps of both kinds take turns.

    python benchmarks/noise_ahead.py
"""

import statistics
import time
from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vdm.diffusion.noise_priors import Independent
from vdm.objectives.batch_randomness import NoisePrefetcher

NUM_WORKERS = 2
NUM_STEPS = 20
STEP_SECONDS = 0.1
CLIP = (1, 1, 1)
BATCHES = (
    ("8 clips of 8x32x32 pixels", 8, (3, 8, 32, 32)),
    ("8 clips of 16x64x64 pixels", 8, (3, 16, 64, 64)),
    ("2 clips of 14x576x1024, as latents", 2, (4, 14, 72, 128)),
)


class Steps(Dataset[Tensor]):
    """The noise of each step."""

    def __init__(self, draw: NoisePrefetcher, batch_size: int) -> None:
        self.draw, self.batch_size = draw, batch_size

    def __len__(self) -> int:
        return NUM_STEPS + 2 * NUM_WORKERS

    def __getitem__(self, step: int) -> Tensor:
        return self.draw(range(step * self.batch_size, (step + 1) * self.batch_size), CLIP)


def waits(steps: Steps) -> Iterator[tuple[float, float]]:
    """Yield how long each step waits for noise that it draws, and for noise that workers have drawn, in seconds."""
    ahead = iter(DataLoader(steps, batch_size=None, num_workers=NUM_WORKERS))
    next(ahead)  # workers start
    for number in range(NUM_STEPS):
        time.sleep(STEP_SECONDS)
        begin = time.perf_counter()
        steps[number]
        drawn = time.perf_counter()
        next(ahead)
        yield drawn - begin, time.perf_counter() - drawn


def main() -> None:
    """Measure and print."""
    print(f"{'':36}{'drawn in the step':>20}{'drawn ahead':>14}")
    for name, batch_size, shape in BATCHES:
        steps = Steps(NoisePrefetcher(0, Independent(), {CLIP: shape}, 0), batch_size)
        in_step, ahead = (statistics.median(kind) * 1000 for kind in zip(*waits(steps), strict=True))
        print(f"{name:36}{in_step:>17.1f} ms{ahead:>11.1f} ms", flush=True)


if __name__ == "__main__":
    main()
