"""Videos under construction: what each frame block knows of its frames, and where its result is kept."""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.observations import Frames, Observation
from vdm.generation.frame_blocks import Block
from vdm.generation.tasks import Known
from vdm.models.conditioner import TakesKnownFrames
from vdm.types import ClipSize


class Canvas(Protocol):
    """A batch of videos under construction."""

    def latents(self, block: Block) -> Float[Tensor, "b c t h w"]:
        """Return a block's latents: known ones, and zeros for those to be sampled."""
        ...

    def pixels(self, block: Block) -> UInt8[Tensor, "b c t h w"]:
        """Return a block's frames on the model's device; only known ones mean something."""
        ...

    def observations(self, block: Block, latents: Float[Tensor, "b c t h w"]) -> list[Observation]:
        """Return the observations of a block's ``latents``; none of whole frames if prompts tell them."""
        ...

    def add(self, block: Block, made: Float[Tensor, "b c t h w"]) -> None:
        """Store a sampled block."""
        ...

    def videos(self) -> UInt8[Tensor, "b c t h w"]:
        """Return the videos, on the CPU."""
        ...

    def whole_latents(self) -> Float[Tensor, "b c t h w"]:
        """Return the latents of the whole videos, on the CPU."""
        ...


def canvas_of(model: VideoDiffusionModel, size: ClipSize, known: Known, num_videos: int) -> Canvas:
    """Return a canvas for videos of one size; ``known`` is what is known of each of them."""
    kind = FrameLatents if model.encoder.compression.frames == 1 else ClipPixels
    return kind(model, size, known, num_videos)


def known_latents(model: VideoDiffusionModel, block: Block) -> tuple[int, ...]:
    """Return the indices of a block's latent frames that are known exactly."""
    compression = model.encoder.compression
    if compression.frames == 1 or not block.known:
        return tuple(frame - block.start for frame in block.known)
    return tuple(range(compression.latent_frames(len(block.known))))


class FrameLatents:
    """Videos as latents, for autoencoders with one latent frame a frame; decoded once, at the end."""

    def __init__(self, model: VideoDiffusionModel, size: ClipSize, known: Known, num_videos: int) -> None:
        self._model, self._small = model, None
        self._all = torch.zeros(num_videos, *model.encoder.latent_shape(size), device=model.device)
        if known.frames is not None:
            frames = known.frames if known.frames.ndim == 5 else known.frames[None]
            self._all[:, :, list(known.indices)] = self._encoded(frames)
        if known.small is not None:
            self._small = self._encoded(known.small[None]).expand(num_videos, -1, -1, -1, -1)

    def _encoded(self, videos: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t h2 w2"]:
        return self._model.encoder.encode(videos.to(self._model.device)).to(self._all)

    def pixels(self, block: Block) -> UInt8[Tensor, "b c t h w"]:
        """Return a block's frames on the model's device; only known ones mean something."""
        return self._model.encoder.decode(self.latents(block))

    def latents(self, block: Block) -> Float[Tensor, "b c t h w"]:
        """Return a block's latents: known ones, and zeros for those to be sampled."""
        return self._all[:, :, block.start : block.stop]

    def observations(self, block: Block, latents: Float[Tensor, "b c t h w"]) -> list[Observation]:
        """Return the observations of a block: exact frames, and the low resolution of the others."""
        whole = known_latents(self._model, block)
        others = tuple(frame for frame in range(latents.shape[2]) if frame not in whole)
        observations = []
        if whole and not isinstance(self._model.conditioner, TakesKnownFrames):
            observations.append(Observation(latents[:, :, list(whole)], Frames(whole, latents.shape[2])))
        if self._small is not None and others:
            small = self._small[:, :, block.start : block.stop][:, :, list(others)]
            factor = latents.shape[-1] // small.shape[-1]
            observations.append(Observation(small, Frames(others, latents.shape[2], factor)))
        return observations

    def add(self, block: Block, made: Float[Tensor, "b c t h w"]) -> None:
        """Store the latents of a block's new frames."""
        self._all[:, :, list(block.new)] = made[:, :, [frame - block.start for frame in block.new]]

    def videos(self) -> UInt8[Tensor, "b c t h w"]:
        """Return the videos, on the CPU."""
        return self._model.encoder.decode(self._all).cpu()

    def whole_latents(self) -> Float[Tensor, "b c t h w"]:
        """Return the latents of the whole videos, on the CPU."""
        return self._all.cpu()


class ClipPixels:
    """Videos as pixels, for causal autoencoders: the first latent frame is one frame, each other one several frames.

    A latent frame from the middle of a clip can't be the first of another clip. So each block is a clip of its own: the
    frames that it shares with the block before are encoded as the beginning of that clip, and the block is decoded when
    its frames are needed.
    """

    def __init__(self, model: VideoDiffusionModel, size: ClipSize, known: Known, num_videos: int) -> None:
        self._model, self._size = model, size
        self._all = torch.zeros(num_videos, 3, size.num_frames, size.height, size.width, dtype=torch.uint8)
        if known.frames is not None:
            self._all[:, :, list(known.indices)] = known.frames.cpu()
        self._latest: tuple[Block, Tensor] | None = None
        """The latest block and its latents, until it is decoded."""

    def latents(self, block: Block) -> Float[Tensor, "b c t h w"]:
        """Return a block's latents: those of its known first frames, and zeros for those to be sampled.

        If the conditioner takes known frames, all are zeros, since it encodes them itself.
        """
        self._decode_latest()
        encoder, device = self._model.encoder, self._model.device
        clip = ClipSize(block.stop - block.start, self._size.height, self._size.width)
        latents = torch.zeros(len(self._all), *encoder.latent_shape(clip), device=device)
        if block.known and not isinstance(self._model.conditioner, TakesKnownFrames):
            known = encoder.encode(self._all[:, :, list(block.known)].to(device))
            latents[:, :, : known.shape[2]] = known
        return latents

    def pixels(self, block: Block) -> UInt8[Tensor, "b c t h w"]:
        """Return a block's frames on the model's device; only known ones mean something."""
        self._decode_latest()
        return self._all[:, :, block.start : block.stop].to(self._model.device)

    def observations(self, block: Block, latents: Float[Tensor, "b c t h w"]) -> list[Observation]:
        """Return the observation of a block's known first frames, unless the conditioner takes them."""
        if not block.known or isinstance(self._model.conditioner, TakesKnownFrames):
            return []
        first = known_latents(self._model, block)
        return [Observation(latents[:, :, list(first)], Frames(first, latents.shape[2]))]

    def add(self, block: Block, made: Float[Tensor, "b c t h w"]) -> None:
        """Store the latents of a block, to be decoded when its frames are needed."""
        self._latest = block, made

    def _decode_latest(self) -> None:
        if self._latest is None:
            return
        block, made = self._latest
        decoded = self._model.encoder.decode(made).cpu()
        self._all[:, :, list(block.new)] = decoded[:, :, [frame - block.start for frame in block.new]]
        self._latest = None

    def videos(self) -> UInt8[Tensor, "b c t h w"]:
        """Return the videos, on the CPU."""
        self._decode_latest()
        return self._all

    def whole_latents(self) -> Float[Tensor, "b c t h w"]:
        """Return the latents of videos that were made in one block, on the CPU."""
        assert self._latest is not None, "generate has refused several blocks"
        return self._latest[1].cpu()


def check_blocks(model: VideoDiffusionModel, blocks: Sequence[Block]) -> None:
    """Refuse blocks whose frames, or whose known first frames, the autoencoder can't encode as a clip.

    Raises:
        ValueError: In one line that names the option.
    """
    compression = model.encoder.compression
    if compression.frames == 1:
        return
    for block in blocks:
        compression.latent_frames(block.stop - block.start, "block_frames")
        if isinstance(model.conditioner, TakesKnownFrames):
            continue
        if block.known:
            compression.latent_frames(len(block.known), "overlap")
        if block.known != tuple(range(block.start, block.start + len(block.known))):
            raise ValueError("blocks: a causal autoencoder knows only the first frames of a block")
