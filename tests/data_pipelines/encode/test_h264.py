import io
import os
import subprocess
import sys

import av
import numpy as np
import pytest

from data_pipelines.encode.h264 import encode_h264
from vdm.data.decoding import decode_clip


def _smooth_clip(num_frames: int, height: int, width: int) -> np.ndarray:
    t, y, x = np.meshgrid(np.arange(num_frames), np.arange(height), np.arange(width), indexing="ij")
    gray = 128 + 100 * np.sin((x + 2 * t) / 9) * np.cos(y / 7)
    return np.stack([gray, gray, 255 - gray], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(8, 32, 32), (1, 16, 64), (5, 2, 2)])
def test_loader_decodes_what_was_encoded(shape: tuple[int, int, int]) -> None:
    video = _smooth_clip(*shape)

    decoded = decode_clip(encode_h264(video, fps=8), shape).numpy()

    assert np.abs(decoded.transpose(1, 2, 3, 0).astype(int) - video).mean() < 4


@pytest.mark.parametrize("fps", [8.0, 12.5, 29.97, 24000 / 1001])
def test_frame_rate_is_recorded(fps: float) -> None:
    with av.open(io.BytesIO(encode_h264(_smooth_clip(8, 16, 16), fps))) as container:
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(fps, rel=1e-3)


_ENCODE_NOISE = """
import hashlib, numpy as np
from data_pipelines.encode.h264 import encode_h264
clips = [np.random.default_rng(n).integers(0, 256, (64, 80, 3), dtype=np.uint8) for n in range(6)]
videos = [np.stack([clip[t : t + 32, 2 * t : 2 * t + 32] for t in range(16)]) for clip in clips]
print(hashlib.md5(b"".join(encode_h264(video, 8) for video in videos)).hexdigest())
"""


def test_same_clip_gives_same_bytes_whatever_memory_held_before() -> None:
    def digest(memory: int) -> str:
        environment = os.environ | {"MALLOC_PERTURB_": str(memory)}  # glibc fills new memory with that byte
        return subprocess.check_output([sys.executable, "-c", _ENCODE_NOISE], env=environment, text=True)

    assert digest(85) == digest(170) == digest(1)
