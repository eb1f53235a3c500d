"""How near a training step of the demo's network comes to a matrix product of the same precision.

Both are measured in turns in one run, and the figures are ratios: the machine's own speed drops out. Run with
``make bench``, or ``python benchmarks/training_step.py [model=unet_base ...]`` with overrides of conf/train.yaml.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks.figures import Figure, record
from vdm.assembly.build_model import build_model
from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir
from vdm.training.planning.step import flop_counter

NUM_ROUNDS = 7
MATRIX_SIZE = 2048
CLIP = (3, 8, 32, 32)


def seconds(function: Callable[[], object]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print FLOP/s of both, and their ratio."""
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", ["experiment=moving_digits", *sys.argv[1:]])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    torch.manual_seed(0)
    model = build_model(config)
    batch = config["data"]["micro_batch_size"]
    x0, noise, t = torch.rand(batch, *CLIP), torch.randn(batch, *CLIP), torch.rand(batch)
    prompts = model.prompts(["the digit three moves up and to the left"] * batch)

    def step() -> None:
        model.denoising_loss(x0, noise, t, prompts).mean().backward()

    left, right = torch.randn(MATRIX_SIZE, MATRIX_SIZE), torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    with flop_counter() as counter:
        step()
    of_step, of_product = counter.get_total_flops(), 2 * MATRIX_SIZE**3
    # The best of several: whatever else runs on the machine only ever slows a round down.
    times = [(seconds(step), seconds(lambda: left @ right)) for _ in range(NUM_ROUNDS)]
    step_rate = of_step / min(step_time for step_time, _ in times)
    product_rate = of_product / min(product_time for _, product_time in times)
    step_seconds, ratio = min(step_time for step_time, _ in times), step_rate / product_rate
    print(f"{of_step / 1e9:.1f} GFLOP a step of {batch} clips, {torch.get_num_threads()} threads")
    case = " ".join(["make demo", *sys.argv[1:]])
    record(Figure("training_step", case, "ms, forward and backward", step_seconds * 1e3))
    record(Figure("training_step", case, "GFLOP/s, product's", step_rate / 1e9, product_rate / 1e9, ratio))


if __name__ == "__main__":
    main()
