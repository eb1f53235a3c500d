"""What is seen of a video while it is being denoised."""

import base64
import io
import time
from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vdm.models.autoencoder import Autoencoder

_SHARE = 0.1
"""Share of the time that decoding previews may take."""
_INTERVAL = 0.4
"""Seconds between two previews, at least."""
_MAX_SIDE, _MAX_FRAMES = 320, 32
"""Pixels of a preview's longer side and frames, at most."""


class Preview:
    """Shows the denoised latents of the first video now and then, in at most a tenth of the time.

    Args:
        encoder: The autoencoder.
        fps: Frames per second.
        show: Called with the address of an animated picture.
    """

    def __init__(self, encoder: Autoencoder, fps: float, show: Callable[[str], object]) -> None:
        self._encoder, self._fps, self._show = encoder, fps, show
        self._next = 0.0

    def __call__(self, x0: Float[Tensor, "b c t h w"]) -> None:
        """Show the latents, unless that would come too soon."""
        started = time.monotonic()
        if started < self._next:
            return
        self._show(animation(decoded_small(self._encoder, x0[:1])[0], self._fps))
        took = time.monotonic() - started
        self._next = started + max(_INTERVAL, took / _SHARE)


@torch.no_grad()
def decoded_small(encoder: Autoencoder, latents: Float[Tensor, "b c t h w"]) -> UInt8[Tensor, "b c t h2 w2"]:
    """Decode latents at half their height and width, which takes a quarter of the time; pixels as they are."""
    height, width = latents.shape[-2:]
    if encoder.compression.pixels > 1 and min(height, width) >= 16:
        frames = rearrange(latents, "b c t h w -> (b t) c h w")
        smaller = torch.nn.functional.interpolate(frames, (height // 2, width // 2), mode="area")
        latents = rearrange(smaller, "(b t) c h w -> b c t h w", t=latents.shape[2])
    return encoder.decode(latents).cpu()


def animation(video: UInt8[Tensor, "c t h w"], fps: float) -> str:
    """Return the address of an animated picture, which holds the picture itself (``data:``)."""
    every = -(-video.shape[1] // _MAX_FRAMES)
    frames = [_reduced(Image.fromarray(frame.numpy())) for frame in rearrange(video, "c t h w -> t h w c")[::every]]
    return f"data:image/webp;base64,{base64.b64encode(_webp(frames, every * 1000 / fps)).decode()}"


def _reduced(picture: Image.Image) -> Image.Image:
    scale = min(1.0, _MAX_SIDE / max(picture.size))
    return picture if scale == 1 else picture.resize([max(1, round(side * scale)) for side in picture.size])


def _webp(frames: Sequence[Image.Image], milliseconds: float) -> bytes:
    file = io.BytesIO()
    first, *others = frames
    kind = {"save_all": True, "append_images": others, "duration": max(1, round(milliseconds)), "loop": 0}
    first.save(file, "WEBP", quality=75, method=0, **kind)
    return file.getvalue()
