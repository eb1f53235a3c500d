"""Inception, the network of FID and of the Inception Score, over single frames."""

from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.extractors.batches import NetworkExtractor, Video
from vdm.evaluation.extractors.torchscript import load_torchscript
from vdm.ranges import Location, Sha256, Size

_WIDTH = 2048
_CLASSES = (1008, 1000)


class Inception(NetworkExtractor):
    """Inception v3 of 2015 from NVIDIA's TorchScript file ``inception-2015-12-05.pt`` (Karras et al. 2020).

    The file takes bytes of any size, and resizes them itself, by TensorFlow 1's rule. Each frame is one row.

    Args:
        path: The TorchScript file, which takes ``(img, return_features, no_output_bias)``. It is code, and runs.
        sha256: The SHA-256 that it must have; None if any will do.
        layer: ``features``: 2048 numbers, for FID; ``logits``: logarithms of class probabilities, computed without
            the bias of the last layer, for the Inception Score (Salimans et al. 2016).
        batch_size: Clips in a batch; all their frames are computed at once.
    """

    def __init__(
        self,
        path: Location,
        sha256: Sha256 | None = None,
        layer: Literal["features", "logits"] = "features",
        batch_size: Size = 4,
    ) -> None:
        self.file = load_torchscript(path, sha256)
        if not self.file.takes("return_features", "no_output_bias"):
            raise ValueError(f"path: {path}: not Inception, which takes 'return_features' and 'no_output_bias'")
        self.layer = layer
        super().__init__(self.file.module, self.file.checksum, batch_size)

    def features(self, pixels: Video) -> Float[Tensor, "b t d"]:
        """Return features or logits of each frame."""
        frames = rearrange(pixels, "b c t h w -> (b t) c h w")
        if self.layer == "features":
            output = self.file.call(frames, return_features=True)
            rows = self.file.checked(output, len(frames), [_WIDTH], "Inception")
        else:
            output = self.file.call(frames, no_output_bias=True)
            rows = self.file.log_probabilities(self.file.checked(output, len(frames), _CLASSES, "Inception"))
        return rearrange(rows, "(b t) d -> b t d", b=len(pixels))
