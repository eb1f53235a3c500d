"""Describing many clips by a network, in batches of one fixed size."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Self, TypeVar

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from vdm.evaluation.base import EvaluatedClip, Features

Item = TypeVar("Item")
Video = UInt8[Tensor, "b c t h w"]


def in_batches(
    describe: Callable[[Sequence[Item]], Float[Tensor, "b k d"]], items: Sequence[Item], batch_size: int
) -> Features:
    """Describe items in batches of one size, without gradients and autocast.

    Kernels may round differently for batches of different size. Short batches are therefore filled up with copies of
    their first item, whose rows are dropped: a description does not depend on the number of items around it.

    Args:
        describe: Describes ``batch_size`` items of equal shape.
        items: At least one item: clips, pairs of clips or prepared clips. Those of equal shape share batches.
        batch_size: Number of items in a batch.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, item in enumerate(items):
        by_shape.setdefault(_shape(item), []).append(number)
    rows: dict[int, Tensor] = {}
    with _exact():
        for numbers in by_shape.values():
            for start in range(0, len(numbers), batch_size):
                chosen = numbers[start : start + batch_size]
                filled = [*chosen, *[chosen[0]] * (batch_size - len(chosen))]
                described = describe([items[number] for number in filled]).float().cpu()
                rows.update(zip(chosen, described, strict=False))  # fillers are dropped
    return torch.stack([rows[number] for number in range(len(items))])


def _shape(item: object) -> tuple[int, ...]:
    first = item[0] if isinstance(item, tuple) else item
    tensor = first.video if isinstance(first, EvaluatedClip) else first
    assert isinstance(tensor, Tensor), "items are clips, pairs of clips or tensors"
    return tuple(tensor.shape)


@contextmanager
def _exact() -> Iterator[None]:
    """Compute in full precision and always by the same kernels, also while training runs under autocast."""
    with ExitStack() as contexts:
        contexts.enter_context(torch.no_grad())
        for device_type in ("cpu", "cuda"):
            contexts.enter_context(torch.autocast(device_type, enabled=False))
        contexts.enter_context(
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        )
        yield


def stacked(clips: Sequence[EvaluatedClip]) -> Video:
    """Return the frames of clips of equal size.

    Raises:
        ValueError: In one line, if sizes differ or the frames are not RGB.
    """
    first = clips[0]
    for clip in clips:
        if clip.video.shape != first.video.shape:
            raise ValueError(f"{clip.key}: is {_size(clip)}, but {first.key} is {_size(first)}; clips must be equal")
        if clip.video.shape[0] != 3:
            raise ValueError(f"{clip.key}: has {clip.video.shape[0]} channels; metrics look at RGB")
    return torch.stack([clip.video for clip in clips])


def _size(clip: EvaluatedClip) -> str:
    _, frames, height, width = clip.video.shape
    return f"{frames} frames of {height}x{width}"


def check_frames(video: Video, allowed: bool, needed: str) -> None:
    """Refuse clips with a number of frames that a network does not take.

    Raises:
        ValueError: In one line that ends with ``needed``, unless ``allowed``.
    """
    if not allowed:
        raise ValueError(f"clips have {video.shape[2]} frame{'s' * (video.shape[2] != 1)}; {needed}")


class WithoutNetwork:
    """Base class of extractors that compute scores on a device, without a network."""

    checksum: str | None = None
    files: Mapping[str, str] = MappingProxyType({})
    batch_size: int = 1  # nothing is gained by more
    device = torch.device("cpu")

    def to(self, device: torch.device) -> Self:
        """Compute on a device."""
        self.device = device
        return self


class NetworkExtractor(ABC):
    """Base class of extractors that describe clips by a network.

    Args:
        network: The network; kept in evaluation mode.
        checksum: SHA-256 of its weights.
        batch_size: Clips in a batch.
        files: SHA-256 of further files that its descriptions depend on, by name.
    """

    def __init__(
        self, network: nn.Module, checksum: str | None, batch_size: int, files: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.network = network.eval()
        self.checksum, self.files = checksum, files
        self.batch_size = batch_size
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self.network.to(device)
        self.device = device
        return self

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Describe clips; see ``Extractor``."""
        with _exact():
            prepared = [self.prepare(stacked([clip]).to(self.device))[0] for clip in clips]
        return in_batches(lambda batch: self.features(torch.stack(list(batch))), prepared, self.batch_size)

    def prepare(self, video: Video) -> Shaped[Tensor, "b c t h2 w2"]:
        """Return what the network sees of a clip: resized and scaled pixels, by default those of the clip.

        Clips are prepared one by one, so that those of different sizes share batches of the network.

        Raises:
            ValueError: If it can't describe clips of this kind, in one line.
        """
        return video

    @abstractmethod
    def features(self, pixels: Shaped[Tensor, "b c t h w"]) -> Float[Tensor, "b k d"]:
        """Describe one batch of prepared clips on the extractor's device.

        Raises:
            ValueError: If it can't describe clips of this kind, in one line.
        """
