"""A network of two experts: one for high noise levels and one for low ones, as Wan 2.2 A14B (Wan Team 2025)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vdm.types import Conditioning

Expert = Literal["high_noise", "low_noise"]
HIGH: Expert = "high_noise"
LOW: Expert = "low_noise"
EXPERTS: tuple[Expert, Expert] = (HIGH, LOW)
NUM_TIMESTEPS = 1000
"""Timestep of pure noise."""
Boundary = Annotated[float, Interval(gt=0, lt=1)]
Agree = Callable[[Sequence[bool]], Sequence[bool]]
"""Given which experts this process needs, in the order of ``EXPERTS``, returns those that any process needs."""


class TwoExperts(nn.Module):
    """Two networks of the same kind, of which each noise level uses one.

    The expert of a clip follows from its timestep, as in diffusers: ``high_noise`` from ``1000 boundary`` on, else
    ``low_noise``. If the frames of a clip have different timesteps, the largest one counts: given frames are clean.

    Args:
        high_noise: The network for high noise levels.
        low_noise: The network for low noise levels.
        boundary: Smallest timestep of the expert for high noise levels, as a share of 1000; 0.875 for Wan's
            text-to-video, 0.9 for its image-to-video. Timesteps are those that a network is told, after any time shift.
    """

    _place: Tensor

    def __init__(self, high_noise: nn.Module, low_noise: nn.Module, boundary: Boundary = 0.875) -> None:
        super().__init__()
        if not 0 < boundary < 1:
            raise ValueError(f"boundary must lie between 0 and 1, but is {boundary}")
        self.boundary = boundary
        self.high_noise, self.low_noise = high_noise, low_noise
        self.before_use: Callable[[Expert], None] | None = None
        """Called before an expert computes, for example to move it to the device."""
        self._only: Expert | None = None
        self._agree: Agree = list
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def frame_multiple(self) -> int:
        """Numbers of rows and columns of latents are multiples of this number."""
        return getattr(self.high_noise, "frame_multiple", 1)

    @property
    def device(self) -> torch.device:
        """Where the experts compute; an idle one may lie elsewhere."""
        return self._place.device

    @property
    def trained(self) -> list[Expert]:
        """The experts with trained weights."""
        return [name for name in EXPERTS if any(weight.requires_grad for weight in self._expert(name).parameters())]

    @contextmanager
    def only(self, expert: Expert) -> Iterator[None]:
        """Use one expert for all clips while the context lasts, whatever their timesteps."""
        self._only = expert
        try:
            yield
        finally:
            self._only = None

    @contextmanager
    def agreeing(self, agree: Agree) -> Iterator[None]:
        """Have all processes call the same experts while the context lasts, for strategies that gather weights."""
        self._agree = agree
        try:
            yield
        finally:
            self._agree = list

    def forward(
        self,
        xt: Float[Tensor, "b c t h w"],
        c_noise: Float[Tensor, "b *frames"],
        condition: Conditioning,
        num_images: int = 0,
    ) -> Float[Tensor, "b c_out t h w"]:
        """Return the raw prediction; the arguments are those of each expert, and ``c_noise`` is the timestep."""
        if self._only is not None:
            return self._ready(self._only)(xt, c_noise, condition, num_images)
        is_high = self.is_high(c_noise)
        of_expert = [is_high.nonzero()[:, 0], (~is_high).nonzero()[:, 0]]
        needed = self._agree([len(rows) > 0 for rows in of_expert])
        predicted: dict[Expert, Tensor] = {}
        for expert, rows, is_needed in zip(EXPERTS, of_expert, needed, strict=True):
            if not is_needed:
                continue
            # One clip, whose result is not used, if only other processes need this expert.
            called = rows if len(rows) > 0 else rows.new_zeros(1)
            part = condition.map(lambda tensor, called=called: tensor[called])
            output = self._ready(expert)(xt[called], c_noise[called], part, num_images)
            predicted[expert] = output[: len(rows)]
        # Back into the order of the clips.
        return torch.cat(list(predicted.values()))[torch.cat(of_expert).argsort()]

    def is_high(self, c_noise: Float[Tensor, "b *frames"]) -> Bool[Tensor, " b"]:
        """Return which clips have a timestep of the expert for high noise levels."""
        return c_noise.reshape(len(c_noise), -1).amax(dim=1) >= self.boundary * NUM_TIMESTEPS

    def _ready(self, name: Expert) -> nn.Module:
        if self.before_use is not None:
            self.before_use(name)
        return self._expert(name)

    def _expert(self, name: Expert) -> nn.Module:
        return self.high_noise if name == HIGH else self.low_noise


class OneOnDevice:
    """Keeps the expert in use on the device, and the other one on the CPU.

    Args:
        network: The network, whose experts are on the CPU.
        moved: Called after an expert has been moved, with the place.
    """

    def __init__(self, network: TwoExperts, moved: Callable[[Expert, torch.device], None] | None = None) -> None:
        self._network, self._moved = network, moved
        self.present: Expert | None = None
        """The expert on the device."""
        network.before_use = self.bring

    def bring(self, expert: Expert) -> None:
        """Move an expert to the device, after the other one has left it."""
        if expert == self.present:
            return
        if self.present is not None:
            self._move(self.present, torch.device("cpu"))
        self._move(expert, self._network.device)
        self.present = expert

    def _move(self, expert: Expert, place: torch.device) -> None:
        self._network.get_submodule(expert).to(place)
        if self._moved is not None:
            self._moved(expert, place)


def move_but_experts(module: nn.Module, device: torch.device) -> None:
    """Move a module to a device, but for the experts in it, which ``OneOnDevice`` moves when they are used."""
    networks = [part for part in module.modules() if isinstance(part, TwoExperts)]
    experts = [(network.high_noise, network.low_noise) for network in networks]
    for network in networks:
        network.high_noise, network.low_noise = nn.Identity(), nn.Identity()
    module.to(device)
    for network, (high_noise, low_noise) in zip(networks, experts, strict=True):
        network.high_noise, network.low_noise = high_noise, low_noise


@contextmanager
def agreeing(network: nn.Module, agree: Agree) -> Iterator[None]:
    """Have all processes call the same experts while the context lasts, if the network consists of two."""
    if not isinstance(network, TwoExperts):
        yield
        return
    with network.agreeing(agree):
        yield


def weights_of_experts(weights: Mapping[str, Tensor]) -> dict[Expert, dict[str, Tensor]]:
    """Return the weights of each expert, under the names that they have in it."""
    return {
        expert: {name.removeprefix(f"{expert}."): w for name, w in weights.items() if name.startswith(f"{expert}.")}
        for expert in EXPERTS
    }


def lora_of_experts(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the LoRA weights of a network for each file: of each trained expert by its name, or of all by ''."""
    return {name: own for name, own in weights_of_experts(weights).items() if own} or {"": dict(weights)}
