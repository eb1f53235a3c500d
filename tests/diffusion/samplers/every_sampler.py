"""Each sampler in each of its kinds, to be made with a number of steps and a spacing."""

from collections.abc import Callable

from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.dpm_solver_pp_2m import DPMSolverPP2M
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.euler_maruyama import EulerMaruyama
from vdm.diffusion.samplers.heun import Heun
from vdm.diffusion.samplers.predictor_corrector import PredictorCorrector
from vdm.diffusion.samplers.spacing import Spacing
from vdm.diffusion.samplers.unipc import UniPC

Make = Callable[[int, Spacing], GridSampler]

ODE: dict[str, Make] = {
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "dpm_solver_pp_2m": DPMSolverPP2M,
    "unipc-1-bh1": lambda n, spacing: UniPC(n, spacing, order=1, variant="bh1"),
    "unipc-2-bh2": lambda n, spacing: UniPC(n, spacing, order=2),
    "unipc-3-bh1": lambda n, spacing: UniPC(n, spacing, order=3, variant="bh1"),
    "unip-3-bh2": lambda n, spacing: UniPC(n, spacing, order=3, corrector=False),
}
STOCHASTIC: dict[str, Make] = {
    "ddim-0.5": lambda n, spacing: DDIM(n, spacing, eta=0.5),
    "ddim-1": lambda n, spacing: DDIM(n, spacing, eta=1.0),
    "ddpm-0": lambda n, spacing: DDPM(n, spacing, gamma=0.0),
    "euler-churn": lambda n, spacing: Euler(n, spacing, s_churn=10.0),
    "heun-churn": lambda n, spacing: Heun(n, spacing, s_churn=10.0, s_tmin=0.05, s_tmax=20.0),
    "dpm_solver_pp_2m-0.5": lambda n, spacing: DPMSolverPP2M(n, spacing, eta=0.5),
    "dpm_solver_pp_2m_sde": lambda n, spacing: DPMSolverPP2M(n, spacing, eta=1.0),
}
"""Those whose steps are, as those of the ODE's solvers are, functions of noise to signal alone."""
IN_TIME: dict[str, Make] = {
    "ddpm-0.3": lambda n, spacing: DDPM(n, spacing, gamma=0.3),
    "ddpm-1": lambda n, spacing: DDPM(n, spacing, gamma=1.0),
}
"""Those whose steps depend on the schedule's family too."""
NEEDING_SIGNAL: dict[str, Make] = {
    "euler_maruyama": EulerMaruyama,
    "predictor_corrector": PredictorCorrector,
}
"""Those that can't start from pure noise."""
EVERY = ODE | STOCHASTIC | IN_TIME | NEEDING_SIGNAL
