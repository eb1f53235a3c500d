"""TransNetV2, a network that looks at changes over time, and whose weights come inside a package."""

from typing import Any

from einops import reduce
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vdm.evaluation.extractors.batches import NetworkExtractor, Video
from vdm.evaluation.extractors.checksums import weights_checksum
from vdm.evaluation.extractors.preprocess import per_frame
from vdm.models.transnetv2 import load_transnetv2
from vdm.ranges import Size

_HEIGHT, _WIDTH = 27, 48


class TransNet(NetworkExtractor):
    """Features of TransNetV2 (Souček & Lokoč 2020), a shot detector: 256 numbers a clip; needs no download.

    The output of the last block of dilated 3-D convolutions, averaged over frames, rows and columns. Frames are
    resized to 27x48, whatever their aspect ratio, bilinearly with antialiasing, and rounded to bytes, as the network
    takes them. Distances of these features are a metric of this project, named Fréchet-TransNet and never FVD: they
    tell shuffled, frozen, noisy and flickering clips from real ones, but hardly reversed ones.

    Args:
        batch_size: Clips in a batch.
    """

    def __init__(self, batch_size: Size = 8) -> None:
        network: Any = load_transnetv2("evaluation")
        super().__init__(network, weights_checksum(network.state_dict()), batch_size)
        self.blocks = network.SDDCNN

    def prepare(self, video: Video) -> Float[Tensor, "b 3 t 27 48"]:
        """Return small frames in whole bytes, 0 to 1."""
        small = per_frame(
            video.float(),
            lambda frames: F.interpolate(
                frames, (_HEIGHT, _WIDTH), mode="bilinear", align_corners=False, antialias=True
            ),
        )
        return small.round().clamp(0, 255) / 255

    def features(self, pixels: Float[Tensor, "b 3 t 27 48"]) -> Float[Tensor, "b 1 256"]:
        """Return the features of clips of any number of frames."""
        hidden = pixels
        for block in self.blocks:
            hidden = block(hidden)
        return reduce(hidden, "b d t h w -> b 1 d", "mean")
