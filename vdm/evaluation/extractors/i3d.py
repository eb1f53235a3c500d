"""I3D, the network of the Fréchet Video Distance."""

from collections.abc import Callable
from typing import Literal

from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from vdm.evaluation.extractors.batches import NetworkExtractor, Video, check_frames
from vdm.evaluation.extractors.preprocess import Prepared, cdfvd_loader, i3d_cdfvd, i3d_original, i3d_shorter_side
from vdm.evaluation.extractors.torchscript import load_torchscript
from vdm.ranges import Location, Sha256, Size

Preprocessing = Literal["in_file", "original", "cdfvd", "shorter_side"]

_RULES: dict[str, Callable[[Video], Prepared]] = {
    "original": i3d_original,
    "cdfvd": i3d_cdfvd,
    "shorter_side": i3d_shorter_side,
}
_CLASSES = 400
_MIN_FRAMES = 9
"""The network halves frames three times, rounding up, and then averages over two."""


class I3D(NetworkExtractor):
    """I3D trained on Kinetics-400 (Carreira & Zisserman 2017), from a TorchScript file.

    Two kinds of files are known by their arguments. ``i3d_torchscript.pt`` of StyleGAN-V (Skorokhodov et al. 2022)
    takes ``(x, rescale, resize, return_features)``: bytes that it resizes itself, or prepared frames. Any other network
    takes one argument, 224x224 pixels from -1 to 1, and returns logits; such is a trace of VideoGPT's or cd-fvd's I3D.

    Args:
        path: The TorchScript file. It is code, and runs.
        sha256: The SHA-256 that it must have; None if any will do.
        preprocessing: How frames are resized to 224x224. ``in_file``: by StyleGAN-V's file itself, given bytes;
            ``original``, ``cdfvd``, ``shorter_side``: see ``vdm.evaluation.extractors.preprocess``.
        layer: ``logits``, with which FVD is defined, or ``probabilities``, their softmax, which StyleGAN-V's file
            returns.
        resolution: Clips are first reduced to this height and width as cd-fvd reads videos (``cdfvd_loader``); None
            if they are taken as they are.
        batch_size: Clips in a batch.
    """

    is_of_fvd = True

    def __init__(
        self,
        path: Location,
        sha256: Sha256 | None = None,
        preprocessing: Preprocessing = "in_file",
        layer: Literal["logits", "probabilities"] = "logits",
        resolution: Size | None = None,
        batch_size: Size = 8,
    ) -> None:
        self.file = load_torchscript(path, sha256)
        self.is_styleganv = self.file.takes("rescale", "resize", "return_features")
        if not self.is_styleganv:
            _check_plain(self.file.path, self.file.required, preprocessing, layer)
        self.preprocessing, self.layer, self.resolution = preprocessing, layer, resolution
        super().__init__(self.file.module, self.file.checksum, batch_size)

    def prepare(self, video: Video) -> Shaped[Tensor, "b 3 t h2 w2"]:
        """Return the frames that the file takes."""
        check_frames(video, video.shape[2] >= _MIN_FRAMES, f"I3D needs at least {_MIN_FRAMES}")
        if self.resolution is not None:
            video = cdfvd_loader(video, self.resolution)
        return video if self.preprocessing == "in_file" else _RULES[self.preprocessing](video)

    def features(self, pixels: Shaped[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1 400"]:
        """Return logits or probabilities."""
        if self.is_styleganv:
            in_file, raw = self.preprocessing == "in_file", self.layer == "logits"
            output = self.file.call(pixels, rescale=in_file, resize=in_file, return_features=raw)
        else:
            output = self.file.call(pixels)
        return rearrange(self.file.checked(output, len(pixels), [_CLASSES], "I3D"), "b d -> b 1 d")


def _check_plain(path: str, required: int, preprocessing: str, layer: str) -> None:
    """Check what is asked of a network that takes prepared frames alone."""
    if required != 1:
        raise ValueError(f"path: {path}: its network takes {required} inputs, not I3D's one")
    if preprocessing == "in_file":
        raise ValueError(
            f"preprocessing=in_file: {path} does not take 'rescale', 'resize' and 'return_features', so it does not"
            f" resize; allowed are {', '.join(_RULES)}"
        )
    if layer != "logits":
        raise ValueError(f"layer={layer}: {path} does not take 'return_features'; only logits are known of it")
