"""What every conditioner is: from what clips are asked for to what the network gets."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.models.autoencoder import Autoencoder
from vdm.models.text_encoders import TextEncoder
from vdm.prompts import Prompts
from vdm.types import ClipBatch, Conditioning


@runtime_checkable
class Conditioner(Protocol):
    """Embeds what the network is guided by; an ``nn.Module``, which trains with the network.

    Everything that training, sampling and the command line know of a model's conditions is declared here. A condition
    of a new kind needs a conditioner that has its name in ``takes``, puts it into the prompts in ``of_clips`` and
    embeds it in ``forward``.
    """

    options: Any
    """Numbers that videos are made with unless their prompts say otherwise: a frozen dataclass, or None.

    Its fields are options of ``vdm sample``, which sets the attribute, with the ranges that their annotations say. They
    are found where the class declares the attribute, as in ``options: MicroConditioning``.
    """

    @property
    def takes(self) -> Collection[str]:
        """Names of the conditions that may be given and left out.

        Three of them can be given on the command line: ``text``, ``label``, and ``image``, the first frame. All may be
        named in ``training.condition_dropout``. Where one is missing from the prompts, it is as if it were dropped.
        """
        ...

    @property
    def text_encoder(self) -> TextEncoder | None:
        """Embeds captions; there where ``takes`` has ``text``."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes; above 0 where ``takes`` has ``label``."""
        ...

    @property
    def text_channels(self) -> int:
        """Width of the tokens that the network attends to, 0 without."""
        ...

    @property
    def vector_channels(self) -> int:
        """Width of the vector that is added to the embedding of the noise level, 0 without."""
        ...

    @property
    def needs_pixels(self) -> bool:
        """Whether batches must have the pixels of first frames, even where latents are read, and the clips' motion."""
        ...

    def of_clips(
        self,
        batch: ClipBatch,
        x0: Float[Tensor, "b c t h w"],
        encoder: Autoencoder,
        seed: int,
        clip_ids: Sequence[int | str],
    ) -> Prompts:
        """Return what clips in training or validation are asked for: what they are.

        Args:
            batch: The clips.
            x0: Their clean latents.
            encoder: Has made the latents.
            seed: Of what is random in conditions.
            clip_ids: Names each clip there: its position in training, its key in validation.
        """
        ...

    def with_first_frame(
        self,
        prompts: Prompts,
        frame: UInt8[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame for each clip; called only where ``takes`` has ``image``.

        Args:
            prompts: One entry a clip.
            frame: RGB first frame of each clip.
            encoder: The autoencoder.
            seed: Of what is random in conditions.
            clip_ids: Names each clip there, by default by its row.
        """
        ...

    def with_first_latents(
        self,
        prompts: Prompts,
        latents: Float[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame of which only the latents are there, as of videos that are made.

        The arguments, and where it is called, are those of ``with_first_frame``.
        """
        ...

    def __call__(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Embed the conditions of clips of ``num_frames`` frames."""
        ...


def append_images(clips: Conditioning, images: Conditioning, num_frames: int, num_images: int) -> Conditioning:
    """Return conditions one a frame: each clip's for all its frames, then those of its ``k`` independent images.

    Args:
        clips: Conditions of ``b`` clips of ``num_frames`` frames.
        images: Conditions of ``b k`` images, those of a clip adjacent.
        num_frames: Frames of a clip.
        num_images: Images beside a clip, ``k``.
    """

    def per_frame(clip: Tensor | None, image: Tensor | None) -> Tensor | None:
        if clip is None or image is None:
            return None
        of_images = rearrange(image, "(b k) ... -> b k ...", k=num_images)
        return torch.cat([repeat(clip, "b ... -> b t ...", t=num_frames), of_images], dim=1)

    longest = max((c.text.shape[1] for c in (clips, images) if c.text is not None), default=0)
    return Conditioning(
        text=per_frame(_pad_tokens(clips.text, longest), _pad_tokens(images.text, longest)),
        text_mask=per_frame(_pad_tokens(clips.text_mask, longest), _pad_tokens(images.text_mask, longest)),
        vector=per_frame(clips.vector, images.vector),
        # No first frame is given for the images.
        image=None if clips.image is None else nn.functional.pad(clips.image, (0, 0, 0, 0, 0, num_images)),
        extra=clips.extra,
    )


def _pad_tokens(tokens: Tensor | None, length: int) -> Tensor | None:
    if tokens is None:
        return None
    return torch.cat([tokens, tokens.new_zeros(tokens.shape[0], length - tokens.shape[1], *tokens.shape[2:])], dim=1)
