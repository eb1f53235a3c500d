"""C3D, the network of the Inception Score of videos."""

import hashlib
import io
import zipfile
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from vdm.evaluation.extractors.batches import NetworkExtractor, Video, check_frames
from vdm.evaluation.extractors.preprocess import c3d_tgan2
from vdm.evaluation.extractors.torchscript import load_torchscript
from vdm.ranges import Location, Sha256, Size
from vdm.regular_files import read_limited

_CLASSES = 101
_FRAMES = 16
_MEAN_SHAPE = (3, 16, 128, 171)
_MAX_MEAN_BYTES = 32 * 2**20


class C3D(NetworkExtractor):
    """C3D tuned on UCF101 (Tran et al. 2015; Saito et al. 2020, "TGAN2"), from a TorchScript file; clips of 16 frames.

    Features are logits over the 101 classes: those of the file, or the logarithm of its probabilities.

    Args:
        path: The TorchScript file, of one argument. It is code, and runs.
        sha256: The SHA-256 that it must have; None if any will do.
        preprocessing: ``in_file``: the file takes bytes of any size, as ``c3d_ucf101.pt`` of StyleGAN-V does;
            ``tgan2``: it takes what TGAN2 gives to C3D, see ``c3d_tgan2``.
        output: What the file returns.
        mean: NumPy file (``.npz`` with the array ``mean``) of the mean clip, for ``tgan2``.
        batch_size: Clips in a batch.
    """

    def __init__(
        self,
        path: Location,
        sha256: Sha256 | None = None,
        preprocessing: Literal["in_file", "tgan2"] = "in_file",
        output: Literal["probabilities", "logits"] = "probabilities",
        mean: Location | None = None,
        batch_size: Size = 8,
    ) -> None:
        if (preprocessing == "tgan2") != (mean is not None):
            raise ValueError(f"mean={mean}: preprocessing=tgan2 needs the file of the mean clip, and in_file none")
        self.mean, files = (None, {}) if mean is None else _read_mean(mean)
        self.file = load_torchscript(path, sha256)
        if self.file.required != 1:
            raise ValueError(f"path: {path}: its network takes {self.file.required} inputs, not C3D's one")
        self.preprocessing, self.output = preprocessing, output
        super().__init__(self.file.module, self.file.checksum, batch_size, files)

    def prepare(self, video: Video) -> Shaped[Tensor, "b 3 16 h2 w2"]:
        """Return the frames that the file takes."""
        check_frames(video, video.shape[2] == _FRAMES, f"C3D takes {_FRAMES}")
        return video if self.mean is None else c3d_tgan2(video, self.mean.to(video.device))

    def features(self, pixels: Shaped[Tensor, "b 3 16 h w"]) -> Float[Tensor, "b 1 101"]:
        """Return logits over the classes."""
        output = self.file.checked(self.file.call(pixels), len(pixels), [_CLASSES], "C3D")
        return rearrange(
            self.file.log_probabilities(output) if self.output == "probabilities" else output, "b d -> b 1 d"
        )


def _read_mean(path: str) -> tuple[Float[Tensor, "3 16 128 171"], dict[str, str]]:
    """Read the mean clip of C3D's training; also return the SHA-256 of its file, by name.

    Raises:
        ValueError: In one line, if the file is missing or holds something else.
    """
    try:
        content = read_limited(path, _MAX_MEAN_BYTES)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            mean = torch.from_numpy(np.asarray(arrays["mean"], dtype=np.float32))
    except FileNotFoundError:
        raise ValueError(f"mean: {path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        raise ValueError(f"mean: {path}: not a .npz file with the array 'mean'") from None
    if tuple(mean.shape) not in (_MEAN_SHAPE, (1, *_MEAN_SHAPE)):
        raise ValueError(f"mean: {path}: has shape {tuple(mean.shape)}, not {_MEAN_SHAPE}")
    return mean.view(_MEAN_SHAPE), {"mean": hashlib.sha256(content).hexdigest()}
