"""One of each noise schedule, and the times at which tests look at them."""

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import LinearBetas, ScaledLinearBetas, SquaredCosineBetas
from vdm.diffusion.schedules.log_snr_linear import LogSNRLinear
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.shifted import Shifted
from vdm.diffusion.schedules.sigmoid import Sigmoid
from vdm.diffusion.schedules.sub_variance_preserving import SubVariancePreserving
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.diffusion.schedules.zero_terminal_snr import ZeroTerminalSNR

VARIANCE_PRESERVING: list[NoiseSchedule] = [
    Cosine(),
    Cosine(-5.0, 8.0),
    VariancePreserving(),
    VariancePreserving(2.0, 2.0),
    Sigmoid(),
    Sigmoid(-1.0, 4.0, tau=0.5),
    LogSNRLinear(),
    LinearBetas(),
    LinearBetas(20, beta_start=0.01, beta_end=0.5),
    LinearBetas(zero_terminal_snr=True),
    ScaledLinearBetas(),
    SquaredCosineBetas(),
    Shifted(Cosine(), -2.0),
    ZeroTerminalSNR(VariancePreserving()),
    ZeroTerminalSNR(Cosine(-5.0, 8.0)),
]
EVERY_SCHEDULE: list[NoiseSchedule] = [
    *VARIANCE_PRESERVING,
    SubVariancePreserving(),
    VarianceExploding(),
    VarianceExploding(0.01, 1348.0),
    RectifiedFlow(),
    Shifted(RectifiedFlow(), -2.2),
    Shifted(SubVariancePreserving(), 1.0),
]
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)
INNER_TIMES = TIMES[1:-1]
