"""LPIPS: how different frames look to a network."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.extractors.pairs import compare_frames
from vdm.evaluation.extractors.torchscript import load_torchscript
from vdm.ranges import Location, Sha256, Size


class LPIPS:
    """Learned perceptual distance of frames (Zhang et al. 2018), from a TorchScript file; the mean over frames.

    Two kinds of files are known by their arguments. NVIDIA's ``vgg16.pt`` takes ``(img, resize_images,
    return_lpips)``, pixels from 0 to 255, and returns vectors whose squared distance is LPIPS. Any other network takes
    two pictures from -1 to 1, and returns one distance a pair, as a trace of the package ``lpips`` does.

    Args:
        path: The TorchScript file. It is code, and runs. There is no default: AlexNet and VGG give other numbers.
        sha256: The SHA-256 that it must have; None if any will do.
        batch_size: Clips in a batch; all their frames are computed at once.
    """

    def __init__(self, path: Location, sha256: Sha256 | None = None, batch_size: Size = 4) -> None:
        self.file = load_torchscript(path, sha256)
        self.is_nvidia = self.file.takes("resize_images", "return_lpips")
        if not self.is_nvidia and self.file.required != 2:
            raise ValueError(f"path: {path}: its network takes {self.file.required} inputs, not LPIPS's two pictures")
        self.file.module.eval()
        self.checksum, self.batch_size = self.file.checksum, batch_size
        self.files: Mapping[str, str] = {}
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self.file.module.to(device)
        self.device = device
        return self

    def compare(self, clips: Sequence[EvaluatedClip], truth: Sequence[EvaluatedClip]) -> Features:
        """Return the distance of each clip from its true clip; see ``PairExtractor``."""
        return compare_frames(self._distance, clips, truth, self.batch_size, self.device)

    def _distance(self, frames: UInt8[Tensor, "n c h w"], truth: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        if self.is_nvidia:
            vectors = [
                self.file.call(one.float(), resize_images=False, return_lpips=True).flatten(1)
                for one in (frames, truth)
            ]
            return (vectors[0] - vectors[1]).square().sum(1)
        distance = self.file.call(*(one.float() / 127.5 - 1 for one in (frames, truth)))
        return self.file.checked(distance.flatten(1) if distance.ndim else distance, len(frames), [1], "LPIPS")[:, 0]
