"""How near a training step of the demo's network comes to a matrix product of the same precision.

Both are measured in turns in one run, and the figures are ratios: the machine's own speed drops out. Run with
``make bench``, or ``python benchmarks/training_step.py [model=unet_base ...]`` with overrides of conf/train.yaml.
"""

import sys
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks.figures import Figure, record
from benchmarks.side_by_side import PRODUCT_FLOPS, best_in_turns, flops, matrix_product
from vdm.assembly.build_model import build_model
from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir

NUM_ROUNDS = 7
CLIP = (3, 8, 32, 32)


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

    of_step = flops(step)
    times = best_in_turns({"step": step, "product": matrix_product(torch.float32)}, NUM_ROUNDS)
    step_rate, product_rate = of_step / times["step"], PRODUCT_FLOPS / times["product"]
    print(f"{of_step / 1e9:.1f} GFLOP a step of {batch} clips, {torch.get_num_threads()} threads")
    case = " ".join(["make demo", *sys.argv[1:]])
    record(Figure("training_step", case, "ms, forward and backward", times["step"] * 1e3))
    record(
        Figure(
            "training_step", case, "GFLOP/s, product's", step_rate / 1e9, product_rate / 1e9, step_rate / product_rate
        )
    )


if __name__ == "__main__":
    main()
