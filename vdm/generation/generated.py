"""The result of a pipeline: videos to look at, to save and to compute with, or their latents."""

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from einops import rearrange
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from vdm.generation.video_files import enlarged, file_name, grid, write_gif, write_mp4

WRITERS = {".mp4": write_mp4, ".gif": write_gif}
"""The function that writes a video, by the suffix of the file."""
_MAX_SHOWN = 16
"""Videos shown in a notebook, whose file stores all that it shows."""


@dataclass(frozen=True)
class GeneratedVideos:
    """Videos, one for each prompt, or their latents, and how they were made; ``generated[0]`` is the first alone."""

    content: UInt8[Tensor, "b c t h w"] | Float[Tensor, "b c t h w"]
    """RGB, or latents if ``output="latents"``, on the CPU."""
    fps: float
    """Frames per second."""
    prompts: tuple[str, ...]
    """Caption of each video."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Plain settings of the call, defaults included; sampler and guidance as texts."""

    @property
    def videos(self) -> UInt8[Tensor, "b c t h w"]:
        """RGB, 0 to 255.

        Raises:
            ValueError: If latents were asked for.
        """
        if self.content.is_floating_point():
            raise ValueError(
                "videos: these are latents, as output='latents' asked for; model.encoder.decode makes videos"
            )
        return self.content

    @property
    def latents(self) -> Float[Tensor, "b c t h w"]:
        """Latents that the videos would be decoded from.

        Raises:
            ValueError: If videos were asked for.
        """
        if not self.content.is_floating_point():
            raise ValueError("latents: these are videos; output='latents' asks for their latents")
        return self.content

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, number: int) -> "GeneratedVideos":
        """Return one of the videos, alone."""
        number = range(len(self))[number]  # an IndexError ends a loop over them
        rows = slice(number, number + 1)
        return GeneratedVideos(self.content[rows], self.fps, self.prompts[rows], self.settings)

    def save(self, path: str | Path) -> list[Path]:
        """Write the videos, and return their files.

        Args:
            path: A file ending in ``.mp4`` or ``.gif``; several videos are numbered: ``dog-0000.mp4``. A path without
                an ending is a folder, whose files are named as by ``vdm sample``.

        Raises:
            ValueError: If the path has another ending, or these are latents.
        """
        path, videos = Path(path), self.videos
        if path.suffix not in ("", *WRITERS):
            raise ValueError(f"{path}: must end in {' or '.join(WRITERS)}, or in nothing for a folder of mp4 files")
        if path.suffix == "" or path.is_dir():
            paths = [path / file_name(number, caption) for number, caption in enumerate(self.prompts)]
        elif len(self) == 1:
            paths = [path]
        else:
            paths = [path.with_stem(f"{path.stem}-{number:04d}") for number in range(len(self))]
        for file, video in zip(paths, videos, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            WRITERS[file.suffix](file, video, self.fps)
        return paths

    def numpy(self) -> UInt8[ndarray, "b t h w c"]:
        """Return the videos with channels last, as for matplotlib and imageio."""
        return rearrange(self.videos, "b c t h w -> b t h w c").numpy()

    def to_pil(self) -> list[list[Image.Image]]:
        """Return the frames of each video as pictures."""
        return [[Image.fromarray(frame) for frame in video] for video in self.numpy()]

    def __repr__(self) -> str:
        number, _, frames, height, width = self.content.shape
        kind = "latents" if self.content.is_floating_point() else "videos"
        return f"<{number} {kind} of {frames}x{height}x{width}, {self.fps:g} frames a second>"

    def _repr_html_(self) -> str:
        """Return HTML in which a notebook plays the videos side by side."""
        if self.content.is_floating_point():
            return escape(repr(self))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "videos.mp4")
            write_mp4(file, enlarged(grid(list(self.videos[:_MAX_SHOWN]))), self.fps)
            content = base64.b64encode(file.read_bytes()).decode()
        captions = "<br>".join(escape(caption) for caption in self.prompts[:_MAX_SHOWN] if caption)
        more = f"<br>and {len(self) - _MAX_SHOWN} more" if len(self) > _MAX_SHOWN else ""
        return f'<video controls loop autoplay muted src="data:video/mp4;base64,{content}"></video><br>{captions}{more}'
