import io
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType

from data_pipelines.encode.h264 import encode_h264
from tests.data.shard_sets import SHAPE, color_of, encode_clip
from vdm.data.clips import Cut
from vdm.data.decoding import UndecodableClipError, decode_clip


def test_a_clip_decodes_to_its_colours_in_order() -> None:
    video = decode_clip(encode_clip(5), SHAPE)
    expected = torch.tensor([color_of(5, frame) for frame in range(SHAPE[0])])  # t c
    assert video.shape == (3, *SHAPE)
    assert video.dtype == torch.uint8
    assert video.permute(1, 2, 3, 0).is_contiguous()  # as it was decoded, and as networks want it
    assert (video.float() - expected.T[:, :, None, None]).abs().max() <= 2


def test_some_frames_are_those_frames_of_the_clip() -> None:
    data = encode_clip(7)  # a key frame every two frames
    video = decode_clip(data, SHAPE)
    for frames in (range(4), range(1), range(1, 2), range(1, 4), range(3, 4), range(0, 4, 2), range(1, 4, 2)):
        part = decode_clip(data, SHAPE, replace(Cut.whole(SHAPE), frames=frames))
        assert torch.equal(part, video[:, list(frames)])


@pytest.mark.parametrize("data", [b"", b"no video", encode_clip(1)[:400], encode_clip(1)[:-200]])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableClipError):
        decode_clip(data, SHAPE)


def test_another_shape_than_that_of_the_index_is_refused() -> None:
    data = encode_clip(1)
    t, h, w = SHAPE
    with pytest.raises(UndecodableClipError, match=f"{t} frames decode where the index records {t + 1}"):
        decode_clip(data, (t + 1, h, w))
    with pytest.raises(UndecodableClipError, match=f"{h}x{w} pixels where the index records {h}x{h}"):
        decode_clip(data, (t, h, h))


def test_any_frames_of_a_clip_without_key_frames_inside_are_those_of_the_whole() -> None:
    """Frames that depend on others before and after them, some of which are left out in decoding."""
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    moving = np.stack([np.roll(picture, (t, 2 * t), (0, 1)) for t in range(30)])
    data, shape = encode_h264(moving, 8.0), (30, 64, 64)
    with av.open(io.BytesIO(data)) as container:
        kinds = {frame.pict_type for frame in container.decode(video=0)}
    assert PictureType.B in kinds
    video = decode_clip(data, shape)
    for frames in (range(7, 13), range(17, 30), range(0, 30, 3), range(5, 29, 4), range(29, 30)):
        part = decode_clip(data, shape, replace(Cut.whole(shape), frames=frames))
        assert torch.equal(part, video[:, list(frames)])
