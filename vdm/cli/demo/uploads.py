"""Uploaded pictures and videos: checked by this project's own readers, then kept beside the videos made from them."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from vdm.files import replacing
from vdm.generation.input_video import read_video
from vdm.generation.requests import load_image
from vdm.regular_files import read_limited

FOLDER = "uploads"
"""Folder beside the numbered folders of results."""
_SHOWN = 160
"""Height and width of the picture that shows an upload."""
UploadedFrames = UInt8[Tensor, "c t h w"]
_MAX_FRAME_BYTES = 1 << 30
"""Bytes of all frames of a video, at its own size, at most."""


@dataclass(frozen=True)
class UploadLimits:
    """Bounds of what a visitor may upload; those of pixels are ``vdm.data.containers.MAX_PIXELS``."""

    max_bytes: int
    max_frames: int

    def picture(self, path: Path) -> UploadedFrames:
        """Return a small square of a picture, as a video of one frame, to be shown.

        Raises:
            ValueError: In one line, if it can't be read or is too large.
        """
        self._check_bytes(path)
        return rearrange(load_image(path, _SHOWN, _SHOWN), "1 c h w -> c 1 h w")

    def video(self, path: Path) -> UploadedFrames:
        """Return the frames of a video as small squares, to be shown.

        Raises:
            ValueError: In one line, if it can't be read, is too long or too large.
        """
        self._check_bytes(path)
        height, width = read_video(path, None, None, 1).frames.shape[-2:]
        small = read_video(path, (_SHOWN, _SHOWN), None, self.max_frames + 1).frames
        num_frames = small.shape[1]
        if num_frames > self.max_frames:
            raise ValueError(f"the video has more than the {self.max_frames} frames that are allowed; cut it first")
        if 3 * num_frames * height * width > _MAX_FRAME_BYTES:
            raise ValueError(
                f"the video's {num_frames} frames of {height}x{width} are too large together; scale or cut it first"
            )
        return small

    def _check_bytes(self, path: Path) -> None:
        if path.stat().st_size > self.max_bytes:
            raise ValueError(f"the file has more than the {self.max_bytes >> 20} MiB that are allowed")

    def keep(self, path: Path, results: Path) -> Path:
        """Copy an upload to where commands find it later too, and return that file, which is named by its content."""
        content = read_limited(path, self.max_bytes)
        name = hashlib.blake2b(content, digest_size=10).hexdigest()
        suffix = path.suffix.lower()
        kept = results / FOLDER / f"{name}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as file:
                file.write(content)
        return kept
