"""A condition as a user adds it: nothing in vdm knows of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from vdm.prompts import Prompts, TensorCondition
from vdm.ranges import Width
from vdm.types import ClipBatch, Conditioning


@dataclass(frozen=True)
class Emphasis:
    """What videos are made with unless told otherwise.

    Args:
        emphasis: Factor of what the network is told.
    """

    emphasis: Annotated[float, Interval(ge=0, le=4)] = 1.0


class BrightnessConditioner(nn.Module):
    """Tells the network how bright a clip is, from 0 to 1.

    Args:
        vector_channels: Width of the embedding.
        options: What videos are made with.
    """

    takes = ("brightness",)
    text_encoder = None
    num_classes = 0
    text_channels = 0
    needs_pixels = "none"
    needs_motion = False
    options: Emphasis

    def __init__(self, vector_channels: Width = 8, options: Emphasis | None = None) -> None:
        super().__init__()
        self.vector_channels = vector_channels
        self.options = options or Emphasis()
        self.embed = nn.Linear(2, vector_channels, bias=False)

    def of_clips(
        self, batch: ClipBatch, x0: Tensor, encoder: object, seed: int, clip_ids: Sequence[int | str]
    ) -> Prompts:
        """Return how bright the clips are."""
        brightness = batch.video.float().mean(dim=(1, 2, 3, 4)) / 255
        return Prompts({"brightness": TensorCondition.given(brightness[:, None])})

    def with_first_frame(self, *_: object) -> Prompts:
        """Not called: ``takes`` has no ``image``."""
        raise AssertionError

    with_first_latents = with_first_frame

    def forward(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Embed the brightness, and whether it is given."""
        given = prompts.find("brightness", TensorCondition)
        if given is None:
            told = torch.zeros(len(prompts), 2)
        else:
            told = TensorCondition(torch.cat([given.values, torch.ones_like(given.values)], 1), given.present).masked
        return Conditioning(vector=self.options.emphasis * self.embed(told))
