"""What each sampler adds to the time of the demo's network: its own arithmetic and its fresh noise.

Both are measured in one run, and the figures are ratios: the machine's own speed drops out. Run with ``make bench``, or
``python benchmarks/sampler_overhead.py [model=unet_base ...]`` with overrides of conf/train.yaml.
"""

import sys
import time
from functools import partial
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vdm.assembly.build_model import build_model
from vdm.assembly.model import VideoDiffusionModel, step_noise
from vdm.cli.run_folder import register_run_folder
from vdm.config import build
from vdm.config.conf_dir import conf_dir
from vdm.diffusion.denoiser import Denoised
from vdm.diffusion.samplers.base import Sampler
from vdm.diffusion.shapes import Latents, Level

NUM_ROUNDS = 5
NUM_STEPS = 8
BATCH_SIZE = 8
CLIP = (3, 8, 32, 32)


@torch.no_grad()
def seconds(model: VideoDiffusionModel, sampler: Sampler) -> tuple[float, float, int]:
    """Return the time of a run in the network, outside it, and the number of calls."""
    calls: list[float] = []
    prompts = model.prompts(["the digit three moves up and to the left"] * BATCH_SIZE)
    conditioned = partial(model.denoiser, condition=model.conditioner(prompts, CLIP[1]))

    def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        begun = time.perf_counter()
        denoised = conditioned(xt, alpha, sigma)
        calls.append(time.perf_counter() - begun)
        return denoised

    prior, clips = model.diffusion.noise_prior, range(BATCH_SIZE)
    noise = prior(0, "noise", clips, CLIP)
    begun = time.perf_counter()
    sampler(denoise, noise, model.diffusion.schedule, step_noise(prior, 0, clips, noise))
    return sum(calls), time.perf_counter() - begun - sum(calls), len(calls)


def samplers() -> dict[str, Sampler]:
    """Return each sampler of conf/sampler, in ``NUM_STEPS`` steps if it takes a number."""
    made: dict[str, Sampler] = {}
    for path in sorted((conf_dir() / "sampler").glob("*.yaml")):
        node: Any = OmegaConf.to_container(compose("sample", [f"sampler={path.stem}"]).sampler)
        made[path.stem] = build(node | {"num_steps": NUM_STEPS} if "num_steps" in node else node, "sampler")
    return made


def main() -> None:
    """Print each sampler's share of the network's time."""
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(
            compose("train", ["experiment=moving_digits", *sys.argv[1:]]), resolve=True
        )
        of_each_kind = samplers()
    torch.manual_seed(0)
    model = build_model(config).eval()
    print(f"threads {torch.get_num_threads()}, {BATCH_SIZE} clips of {CLIP[1]} frames of {CLIP[2]}x{CLIP[3]} pixels")
    print(f"{'sampler':22} {'calls':>5} {'ms a call':>9} {'ms besides':>10} {'share':>6}")
    for name, sampler in of_each_kind.items():
        # The best of several: whatever else runs on the machine only ever slows a round down.
        rounds = [seconds(model, sampler) for _ in range(NUM_ROUNDS)]
        inside, besides, calls = min(r[0] for r in rounds), min(r[1] for r in rounds), rounds[0][2]
        print(f"{name:22} {calls:5} {inside / calls * 1e3:9.1f} {besides / calls * 1e3:10.2f} {besides / inside:6.2%}")


if __name__ == "__main__":
    main()
