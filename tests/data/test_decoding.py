import pytest
import torch

from tests.data.shard_sets import SHAPE, color_of, encode_clip
from vdm.data.decoding import UndecodableClipError, decode_clip, decode_frame


def test_a_clip_decodes_to_its_colours_in_order() -> None:
    video = decode_clip(encode_clip(5), SHAPE)
    expected = torch.tensor([color_of(5, frame) for frame in range(SHAPE[0])])  # t c
    assert video.shape == (3, *SHAPE)
    assert video.dtype == torch.uint8
    assert video.is_contiguous()
    assert (video.float() - expected.T[:, :, None, None]).abs().max() <= 2


def test_one_frame_is_that_frame_of_the_clip() -> None:
    data = encode_clip(7)
    video = decode_clip(data, SHAPE)
    for frame in range(SHAPE[0]):
        assert torch.equal(decode_frame(data, SHAPE, frame), video[:, frame])


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
    with pytest.raises(UndecodableClipError, match="frame 9"):
        decode_frame(data, SHAPE, 9)
