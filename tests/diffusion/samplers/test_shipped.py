"""Every schedule, sampler and spacing of conf/ together: each makes finite samples, or is refused in one line."""

from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.diffusion.samplers.closed_forms import GAUSSIAN, Mixture, moments
from vdm.config import build
from vdm.config.conf_dir import conf_dir
from vdm.diffusion.samplers.heun import Heun
from vdm.diffusion.samplers.spacing import Karras, Leading, Linspace, Spacing, Trailing
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.sigmoid import Sigmoid


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@cache
def _node(group: str, name: str) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose(f"{group}/{name}"))
    for part in group.split("/"):
        node = node[part]
    return node


def _sampler(name: str, spacing: str, num_steps: int) -> Any:
    """Return the node of a sampler, with a spacing where it has one."""
    node = _node("sampler", name)
    if "sampler" in node:
        return {**node, "sampler": _spaced(node["sampler"], spacing, num_steps)}
    return _spaced(node, spacing, num_steps)


def _spaced(node: Any, spacing: str, num_steps: int) -> Any:
    steps = {"spacing": _node("sampler/spacing", spacing), "num_steps": num_steps}
    return {**node, **steps} if "spacing" in node else node


@pytest.mark.parametrize("schedule", _names("diffusion/schedule"))
@pytest.mark.parametrize("sampler", _names("sampler"))
def test_samples_are_finite_or_the_combination_is_refused_in_one_line(sampler: str, schedule: str) -> None:
    noise_schedule = build(_node("diffusion/schedule", schedule), "diffusion.schedule")

    def noise(number: int) -> torch.Tensor:
        return torch.randn(1, 1, 2, 2, 2, generator=torch.Generator().manual_seed(number))

    for spacing in _names("sampler/spacing"):
        sample = build(_sampler(sampler, spacing, 3), "sampler")
        refusal = ""
        try:
            made = sample(GAUSSIAN.denoise, noise(0), noise_schedule, noise)
        except ValueError as error:
            refusal = str(error)
        else:
            assert made.isfinite().all(), spacing
        assert not refusal or ("choose" in refusal and "\n" not in refusal), spacing


@pytest.mark.parametrize("schedule", [Cosine(), Sigmoid(), RectifiedFlow()])
@pytest.mark.parametrize("spacing", [Trailing(), Linspace(), Leading(), Karras(sigma_max=80)])
def test_heun_warns_of_steps_that_are_too_long_for_it(
    caplog: pytest.LogCaptureFixture, schedule: NoiseSchedule, spacing: Spacing
) -> None:
    unit = Mixture((1.0,), (0.0,), (1.0,))
    sampler = Heun(19, spacing)  # of which no other test warns: it is said once

    deviation = moments(sampler, schedule, unit)[1] ** 0.5
    sampler.grid(schedule)

    said = [record.getMessage() for record in caplog.records]
    if deviation > 2:
        assert len(said) == 1
        assert f"for data of standard deviation 1, that of samples would be {deviation:.3g}; choose " in said[0]
    else:
        assert said == []
