"""A network of two convolutions over space and time."""

import torch
from einops import rearrange
from torch import Tensor, nn

from vdm.ranges import Size
from vdm.types import Conditioning


class TwoConvolutions(nn.Module):
    """Enters a hidden width, adds what the noise level says, and leaves again; it reads no conditions.

    Args:
        in_channels: Channels of the latents. No YAML needs to say it: training does.
        width: Channels between the convolutions.
    """

    def __init__(self, in_channels: Size, width: Size = 8) -> None:
        super().__init__()
        self.enter = nn.Conv3d(in_channels, width, 3, padding=1)
        self.level = nn.Linear(1, width)
        self.exit = nn.Conv3d(width, in_channels, 3, padding=1)

    def forward(self, xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
        """Return the raw prediction for noised latents ``b c t h w`` of the noise levels ``b``."""
        hidden = self.enter(xt) + rearrange(self.level(c_noise[:, None]), "b d -> b d 1 1 1")
        return self.exit(torch.nn.functional.silu(hidden))
