"""Whether the frames of a video show the same thing, to an encoder of pictures."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vdm.evaluation.extractors.batches import NetworkExtractor, Video, check_frames
from vdm.evaluation.extractors.torchscript import load_torchscript
from vdm.evaluation.extractors.transformers_models import PixelRule
from vdm.ranges import Location, Sha256, Size

RULES = {
    "dino": PixelRule(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), do_center_crop=False),
    "clip": PixelRule(
        224,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        crop_size=224,
        resample=3,
    ),
}
"""What DINO's and CLIP's own code do to pictures: shorter side to 224; CLIP's is bicubic and crops the middle."""


class FrameConsistency(NetworkExtractor):
    """Mean cosine similarity of each frame with the first and with the one before, 0 to 1.

    With ``d_i`` the embedding of frame i of T, of length 1, it is the mean over i = 2 ... T of
    ``(max(0, <d_1, d_i>) + max(0, <d_(i-1), d_i>)) / 2``. The formula is VBench's (Huang et al. 2024, "Subject
    Consistency"), with the clipping at 0 of its code. With DINO ViT-B/16 it is VBench's "subject consistency", with
    CLIP ViT-B/32 its "background consistency". These figures have names of their own: the file may be of any encoder,
    and VBench's code reads frames in two ways that give other pixels.

    A video that stands still has the score 1: report how much moves beside it.

    Args:
        path: The TorchScript file of the encoder: one argument, pictures, and one vector a picture. It is code, and
            runs.
        preprocessing: What is done to frames: see ``RULES``.
        sha256: The SHA-256 that the file must have; None if any will do.
        batch_size: Clips in a batch; all their frames are computed at once.
    """

    def __init__(
        self, path: Location, preprocessing: Literal["dino", "clip"], sha256: Sha256 | None = None, batch_size: Size = 2
    ) -> None:
        self.file = load_torchscript(path, sha256)
        if self.file.required != 1:
            raise ValueError(f"path: {path}: its network takes {self.file.required} inputs, not an encoder's one")
        self.rule = RULES[preprocessing]
        super().__init__(self.file.module, self.file.checksum, batch_size)

    def prepare(self, video: Video) -> Float[Tensor, "b 3 t h2 w2"]:
        """Return the pixels that the encoder takes."""
        check_frames(video, video.shape[2] >= 2, "consistency needs at least 2")
        return self.rule.apply(video)

    def features(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1 1"]:
        """Return the score of each clip."""
        frames = rearrange(pixels, "b c t h w -> (b t) c h w")
        embedded = self.file.checked(self.file.call(frames), len(frames), (), "an encoder of pictures").float()
        vectors = rearrange(F.normalize(embedded, dim=-1), "(b t) d -> b t d", b=len(pixels))
        first, before, later = vectors[:, :1], vectors[:, :-1], vectors[:, 1:]
        similar = sum((other * later).sum(-1).clamp(min=0) for other in (first, before)) / 2
        assert isinstance(similar, torch.Tensor)
        return rearrange(similar.mean(1), "b -> b 1 1")
