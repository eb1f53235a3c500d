"""diffusers' own Wan transformer, small and with random weights, beside ours with the same weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from unittest.mock import patch

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from vdm.models.dit.transformer import IMAGE_TOKENS, SpaceTimeTransformer
from vdm.randomness import generator, normal
from vdm.types import Conditioning


@dataclass(frozen=True)
class Sizes:
    """Sizes of a small network, by the names of our constructor."""

    num_layers: int = 2
    num_heads: int = 2
    head_channels: int = 12
    hidden_channels: int = 40
    in_channels: int = 4
    text_channels: int = 24
    num_text_tokens: int = 9
    image_conditioned: bool = False
    image_channels: int | None = None
    image_token_channels: int = 0
    num_image_tokens: int = 0


def diffusers_transformer(sizes: Sizes, seed: int = 0) -> WanTransformer3DModel:
    """Return diffusers' network with random weights; weights that start as zeros or ones would hide errors."""
    torch.manual_seed(seed)
    network = WanTransformer3DModel(
        num_attention_heads=sizes.num_heads,
        attention_head_dim=sizes.head_channels,
        in_channels=sizes.in_channels + (sizes.image_channels or 0),
        out_channels=sizes.in_channels,
        text_dim=sizes.text_channels,
        ffn_dim=sizes.hidden_channels,
        num_layers=sizes.num_layers,
        image_dim=sizes.image_token_channels or None,
        added_kv_proj_dim=sizes.num_heads * sizes.head_channels if sizes.image_token_channels else None,
        pos_embed_seq_len=sizes.num_image_tokens or None,
    )
    random = generator(seed, "weights", 0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return network.eval()


def our_transformer(sizes: Sizes, **options: object) -> SpaceTimeTransformer:
    """Return our network of the same sizes."""
    return SpaceTimeTransformer(**{**asdict(sizes), **options}).eval()


@contextmanager
def double_precision() -> Iterator[None]:
    """Let diffusers' network compute in float64 throughout: its own casts to fp32 have no effect on float64."""
    to_fp32 = Tensor.float

    def float_or_double(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else to_fp32(tensor)

    with patch.object(Tensor, "float", float_or_double):
        yield


@dataclass(frozen=True)
class Inputs:
    """The inputs of both networks."""

    xt: Tensor
    timesteps: Tensor
    """1000 sigma of each clip, or of each frame."""
    text: Tensor
    lengths: tuple[int, ...]
    """Number of text tokens of each clip; the others are padding, and hold arbitrary numbers."""
    image: Tensor | None = None
    image_tokens: Tensor | None = None

    @staticmethod
    def random(sizes: Sizes, batch_size: int, num_frames: int, size: tuple[int, int] = (6, 10)) -> "Inputs":
        """Return random inputs; noise levels and the lengths of texts differ from clip to clip."""
        clips, tokens = range(batch_size), sizes.num_image_tokens or 5
        image = (sizes.image_channels or 0, num_frames, *size)
        return Inputs(
            normal(0, "xt", clips, (sizes.in_channels, num_frames, *size)),
            torch.tensor([501.0, 0.0, 999.25])[:batch_size],
            normal(0, "text", clips, (7, sizes.text_channels)),
            (7, 1, 4)[:batch_size],
            normal(0, "image", clips, image) if sizes.image_channels else None,
            normal(0, "tokens", clips, (tokens, sizes.image_token_channels)) if sizes.image_token_channels else None,
        )

    @property
    def mask(self) -> Tensor:
        """True for tokens of the text, False for padding."""
        return torch.arange(self.text.shape[1]) < torch.tensor(self.lengths)[:, None]

    def of_ours(self, network: SpaceTimeTransformer, num_images: int = 0) -> Tensor:
        """Return the output of our network."""
        dtype = network.proj_out.weight.dtype
        image = None if self.image is None else self.image.to(dtype)
        extra = {} if self.image_tokens is None else {IMAGE_TOKENS: self.image_tokens.to(dtype)}
        condition = Conditioning(text=self.text.to(dtype), text_mask=self.mask, image=image, extra=extra)
        return network(self.xt.to(dtype), self.timesteps, condition, num_images)

    def of_diffusers(self, network: WanTransformer3DModel, num_text_tokens: int) -> Tensor:
        """Return the output of diffusers' network."""
        dtype = network.dtype
        text = torch.zeros(len(self.text), num_text_tokens, self.text.shape[2])
        text[:, : self.text.shape[1]] = self.text * self.mask[..., None]
        xt = self.xt if self.image is None else torch.cat([self.xt, self.image], dim=1)
        tokens = self.image_tokens
        if tokens is not None and network.config.pos_embed_seq_len:
            tokens = tokens.unflatten(1, (2, -1)).flatten(0, 1)  # two pictures a clip, as diffusers takes them
        timesteps = self.timesteps
        if timesteps.ndim == 2:  # one a token
            timesteps = timesteps.repeat_interleave(xt.shape[3] // 2 * (xt.shape[4] // 2), dim=1)
        with double_precision():
            return network(xt.to(dtype), timesteps, text.to(dtype), None if tokens is None else tokens.to(dtype)).sample
