"""Which of two experts trains in which optimizer step, and on which noise levels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from vdm.assembly.model import VideoDiffusionModel
from vdm.data.quotas import QuotaSchedule, quotas
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.time_ranges import ALL_TIMES, TimeRange
from vdm.models.experts import EXPERTS, HIGH, LOW, Expert, TwoExperts

ChosenExperts = Literal["both", "high", "low"]
_NAMES: dict[ChosenExperts, tuple[Expert, ...]] = {"both": EXPERTS, "high": (HIGH,), "low": (LOW,)}
LONGEST_CYCLE = 1000
"""Steps after which each expert has had its share exactly; shares are rounded to fractions of such a cycle."""


def freeze_others(model: VideoDiffusionModel, experts: ChosenExperts) -> None:
    """Freeze the expert that is not to be trained.

    Raises:
        ValueError: If one expert is asked for, but the network does not consist of two.
    """
    if isinstance(model.network, TwoExperts):
        for name in set(EXPERTS) - set(_NAMES[experts]):
            model.network.get_submodule(name).requires_grad_(False)
    elif experts != "both":
        raise ValueError(f"{experts}: the network does not consist of two experts, as that of model=wan22_a14b does")


def owners(module: nn.Module) -> dict[str, Expert | None]:
    """Return the expert to which each weight of a module belongs, by the weight's name; None for neither."""
    places = [f"{name}." if name else "" for name, part in module.named_modules() if isinstance(part, TwoExperts)]
    prefixes: dict[str, Expert] = {f"{place}{expert}.": expert for place in places for expert in EXPERTS}
    return {
        name: next((expert for prefix, expert in prefixes.items() if name.startswith(prefix)), None)
        for name, _ in module.named_parameters()
    }


def split_groups(optimizer: Optimizer, model: nn.Module) -> None:
    """Split the groups of an optimizer so that each belongs to one expert, by its key ``expert``, or to none.

    ZeRO joins the weights of a group into one tensor, with one count of steps, and steps each group by itself.
    """
    names = owners(model)
    owner = {weight: names[name] for name, weight in model.named_parameters()}
    if not any(owner.values()):
        return
    optimizer.param_groups[:] = [
        {**group, "params": weights, "expert": expert}
        for group in optimizer.param_groups
        for expert in (None, *EXPERTS)
        if (weights := [weight for weight in group["params"] if owner.get(weight) == expert])
    ]


@dataclass(frozen=True)
class StepExpert:
    """The expert of an optimizer step; None if the network does not consist of two."""

    in_use: Expert | None = None
    times: TimeRange = ALL_TIMES
    """Times of the step's clips, after any shift."""

    @property
    def idle(self) -> Expert | None:
        """The expert that the step leaves alone."""
        return None if self.in_use is None else LOW if self.in_use == HIGH else HIGH

    @contextmanager
    def alone(self, network: nn.Module) -> Iterator[None]:
        """Have the network use this expert alone while the context lasts."""
        if self.in_use is None:
            yield
        else:
            assert isinstance(network, TwoExperts)
            with network.only(self.in_use):
                yield


class ExpertSchedule:
    """Assigns optimizer steps to experts in proportion to the probability of their noise levels.

    The expert is a function of (seed, shape of the clips, number of earlier steps of that shape). So all processes and
    micro-batches of a step use the same one, also after a resume.

    Args:
        seed: Seed of the run.
        network: The network; an expert without trained weights gets no steps.
        diffusion: Distribution of the noise levels.
        latent_shapes: Shape of the latents of each bucket's clips.

    Raises:
        ValueError: If the noise levels never fall on the side of a trained expert.
    """

    def __init__(
        self, seed: int, network: nn.Module, diffusion: GaussianDiffusion, latent_shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self._network = network
        if not isinstance(network, TwoExperts):
            return
        self._steps = {
            HIGH: StepExpert(HIGH, TimeRange(start=network.boundary)),
            LOW: StepExpert(LOW, TimeRange(end=network.boundary)),
        }
        self._trained = _trained_experts(network)
        self._schedules = [self._schedule(seed, network.boundary, diffusion, shape) for shape in latent_shapes]

    def step(self, bucket: int, number: int) -> StepExpert:
        """Return the expert of a step.

        Args:
            bucket: Bucket of the step's clips.
            number: Number of earlier steps with clips of this bucket.
        """
        if not isinstance(self._network, TwoExperts):
            return StepExpert()
        return self._steps[self._trained[self._schedules[bucket].assign(number)[0]]]

    def _schedule(
        self, seed: int, boundary: float, diffusion: GaussianDiffusion, shape: tuple[int, ...]
    ) -> QuotaSchedule:
        low = diffusion.share_below(boundary, shape)
        shares = {HIGH: 1 - low, LOW: low}
        for expert in self._trained:
            if shares[expert] <= 0:
                times = f"from {boundary:g} on" if expert == HIGH else f"below {boundary:g}"
                raise ValueError(
                    f"diffusion.noise_levels: {expert} is trained on times {times}, but {diffusion.noise_levels} has"
                    " none of them: choose others, or the other expert alone (experts=high, experts=low)"
                )
        return QuotaSchedule(
            seed, f"expert in {'x'.join(map(str, shape))}", quotas([_rounded(shares[one]) for one in self._trained])
        )


def a_trained_expert(network: nn.Module) -> StepExpert:
    """Return a step of the first expert that is trained; both are of the same size."""
    return StepExpert(_trained_experts(network)[0]) if isinstance(network, TwoExperts) else StepExpert()


def _trained_experts(network: TwoExperts) -> list[Expert]:
    """Return the experts with trained weights, or both if only other parts of the model are trained."""
    return network.trained or list(EXPERTS)


def _rounded(share: float) -> Fraction:
    """Return the nearest share that a cycle can hold, above 0 and below 1."""
    smallest = Fraction(1, LONGEST_CYCLE)
    return min(max(Fraction(share).limit_denominator(LONGEST_CYCLE), smallest), 1 - smallest)
