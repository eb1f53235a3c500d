import io
import os
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
        part = decode_clip(data, SHAPE, replace(Cut.whole(SHAPE), frames=tuple(frames)))
        assert torch.equal(part, video[:, list(frames)])


@pytest.mark.parametrize("data", [b"", b"no video", encode_clip(1)[:400], encode_clip(1)[:-200]])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableClipError):
        decode_clip(data, SHAPE)


def test_a_damaged_bitstream_is_refused_where_wanted_frames_depend_on_it() -> None:
    """FFmpeg conceals the damage: all frames decode, some of them smeared."""
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    options = {"g": "12", "sc_threshold": "0", "bf": "0", "crf": "20"}
    data = _encode([np.roll(picture, 2 * t, 1) for t in range(24)], options)
    shape = (24, 64, 64)
    whole = decode_clip(data, shape)
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    damaged = packets[6]
    assert damaged.pos is not None
    middle = damaged.pos + damaged.size // 2
    data = data[:middle] + bytes(40) + data[middle + 40 :]
    for frames in (range(24), range(6, 7), range(8, 12), range(0, 12, 2)):
        with pytest.raises(UndecodableClipError, match="is damaged: a frame decodes in part only"):
            decode_clip(data, shape, replace(Cut.whole(shape), frames=tuple(frames)))
    for frames in (range(6), range(12, 24)):
        part = decode_clip(data, shape, replace(Cut.whole(shape), frames=tuple(frames)))
        assert torch.equal(part, whole[:, list(frames)])


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libsvtav1", {"g": "12", "preset": "12"}),
        ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
        ("libx265", {"x265-params": "log-level=none:keyint=12"}),
        ("mpeg4", {"g": "12", "bf": "2"}),
    ],
)
def test_any_frames_of_clips_of_other_codecs_are_those_of_the_whole(codec: str, options: dict[str, str]) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = _encode([np.roll(picture, (t, 2 * t), (0, 1)) for t in range(30)], options, codec)
    shape = (30, 64, 64)
    video = decode_clip(data, shape)
    for frames in (range(7, 11), range(14, 30), range(0, 30, 3), range(5, 29, 4), range(29, 30)):
        part = decode_clip(data, shape, replace(Cut.whole(shape), frames=tuple(frames)))
        assert torch.equal(part, video[:, list(frames)])


@pytest.mark.parametrize("begin", [0, 12])
def test_whole_clips_of_open_groups_of_pictures_are_not_taken_for_damaged(begin: int) -> None:
    """Also where a clip was cut out at a key frame that earlier-shown frames follow, which lack what they refer to."""
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    moving = [np.roll(picture, (t, 2 * t), (0, 1)) for t in range(36)]
    data = _encode(moving, {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"})
    whole, shape = decode_clip(data, (36, 64, 64)), (36 - begin, 64, 64)
    data = _without_first_packets(data, 1 if begin else 0)
    assert torch.equal(decode_clip(data, shape), whole[:, begin:])
    for first in range(shape[0]):
        part = decode_clip(data, shape, replace(Cut.whole(shape), frames=tuple(range(first, shape[0], 5))))
        assert torch.equal(part, whole[:, begin + first :: 5])


@pytest.mark.parametrize("doubled", [3, 6, 10])
def test_of_two_frames_of_one_time_one_is_shown(doubled: int) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = _encode([np.roll(picture, 2 * t, 1) for t in range(12)], {"bf": "2", "b_strategy": "0"})
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        times = sorted(packet.pts for packet in packets if packet.pts is not None)
        for packet in packets:
            packet.stream = stream
            packet.pts = times[doubled + 1] if packet.pts == times[doubled] else packet.pts
            container.mux(packet)
    whole, shape = decode_clip(data, (12, 32, 32)), (11, 32, 32)
    shown = decode_clip(buffer.getvalue(), shape)
    assert torch.equal(shown[:, :doubled], whole[:, :doubled])
    assert torch.equal(shown[:, doubled + 1 :], whole[:, doubled + 2 :])
    for frames in (range(11), range(doubled, 11), range(0, 11, 2), range(10, 11)):
        part = decode_clip(buffer.getvalue(), shape, replace(Cut.whole(shape), frames=tuple(frames)))
        assert torch.equal(part[:, -1], shown[:, frames[-1]])


def _encode(frames: list[np.ndarray], options: dict[str, str], codec: str = "libx264") -> bytes:
    buffer, policy = io.BytesIO(), os.sched_getscheduler(0)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=8, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    # SVT-AV1 gives the thread that calls it real-time priority where it may, and all that this starts would inherit it.
    os.sched_setscheduler(0, policy, os.sched_param(0))
    return buffer.getvalue()


def _without_first_packets(data: bytes, num_keys: int) -> bytes:
    """Copy a video from the key frame on that has ``num_keys`` others before it."""
    buffer, seen = io.BytesIO(), 0
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            seen += packet.is_keyframe
            if packet.size and seen > num_keys:
                packet.stream = stream
                container.mux(packet)
    return buffer.getvalue()


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
        part = decode_clip(data, shape, replace(Cut.whole(shape), frames=tuple(frames)))
        assert torch.equal(part, video[:, list(frames)])
