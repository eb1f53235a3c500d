"""Videos whose shots, motion and faults are known: what curation has to find."""

from pathlib import Path

import cv2
import numpy as np

from tests.data_pipelines.videos import write_h264


def texture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Small tiles of many shades of one colour, another for each seed."""
    generator = np.random.default_rng(seed)
    tiles = generator.uniform(0.2, 1, (24, 32, 1)) * generator.uniform(60, 255, 3)
    return cv2.resize(tiles.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


def shot(seed: int, num_frames: int, speed: int = 2, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """A texture that moves to the right by ``speed`` pixels a frame."""
    picture = texture(seed, height, width)
    return [np.roll(picture, speed * n, axis=1) for n in range(num_frames)]


def letterboxed(frames: list[np.ndarray], rows: int) -> list[np.ndarray]:
    """The frames with so many black rows above and below."""
    frames = [frame.copy() for frame in frames]
    for frame in frames:
        frame[:rows] = frame[-rows:] = 0
    return frames


def raw_footage(folder: Path) -> Path:
    """Write one video of each kind that the stages must tell apart, 8 frames a second.

    ``two_shots`` has 24 frames of one shot and 24 of another; the others one shot of 24 frames.
    """
    folder.mkdir(parents=True)
    write_h264(folder / "two_shots.mp4", shot(1, 24) + shot(2, 24))
    write_h264(folder / "still.mp4", shot(3, 24, speed=0))
    write_h264(folder / "boxed.mp4", letterboxed(shot(4, 24), rows=14))
    write_h264(folder / "black.mp4", [np.zeros((96, 128, 3), np.uint8)] * 12 + shot(5, 12))
    write_h264(folder / "blurred.mp4", [cv2.GaussianBlur(frame, (0, 0), 12) for frame in shot(6, 24)])
    write_h264(folder / "original.mp4", shot(7, 24))
    (folder / "same_bytes.mp4").write_bytes((folder / "original.mp4").read_bytes())
    write_h264(folder / "smaller_copy.mp4", [cv2.resize(frame, (112, 84)) for frame in shot(7, 24)])
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "two_shots.txt").write_text("two textures pass by")
    (folder / "original.json").write_text('{"caption": "a texture passes by", "label": "right"}')
    return folder
