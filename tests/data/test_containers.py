import io
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from av.error import FFmpegError
from PIL import Image

from tests.data.shard_sets import encode_clip
from tests.odd_files import ODD_FILES
from vdm.data import containers, decoding
from vdm.data.containers import TooLargeError, bound_pixels, open_picture, open_video
from vdm.data.decoding import UndecodableClipError, check_clip, decode_clip, decode_picture
from vdm.data.mp4_tables import MAX_SAMPLES, ImplausibleHeaderError, check_tables
from vdm.regular_files import UnfitFileError

CLIP = encode_clip(1)
SHAPE = (4, 16, 32)

LISTS = {
    "concat.mp4": "ffconcat version 1.0\nfile {secret}\n",
    "concat.txt.mp4": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "remote.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "show.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:DASH:schema:MPD:2011" type="static"><Period><AdaptationSet>'
    "<Representation><BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
}
"""Texts that FFmpeg takes for videos, and whose footage it fetches."""


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_other_files_is_no_video_and_opens_none(tmp_path: Path, name: str) -> None:

    (tmp_path / "secret.mp4").write_bytes(CLIP)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0)
        port = server.getsockname()[1]
        (tmp_path / name).write_text(LISTS[name].format(secret="secret.mp4", port=port))
        with pytest.raises(FFmpegError), open_video(tmp_path / name):
            pass
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()


@pytest.mark.parametrize("name", ["a.mp4", "12:30.mp4", "a%03d.mp4", "http:a.mp4", "-", "caf\udce9.mp4", "a\nb.mp4"])
def test_a_path_is_a_path_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CLIP)
    with open_video(tmp_path / name) as container:
        assert len(list(container.decode(video=0))) == 4


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    ODD_FILES[kind](tmp_path / "odd.mp4")
    with pytest.raises(UnfitFileError, match=kind), open_video(tmp_path / "odd.mp4"):
        pass
    with pytest.raises(UnfitFileError, match=kind), open_picture(tmp_path / "odd.mp4"):
        pass


def _claiming(box: bytes, place: int, *values: int) -> bytes:
    """Return a clip in whose box numbers are others, from a byte after the box's name on."""
    data, start = bytearray(CLIP), CLIP.index(box) + 4 + place
    data[start : start + 4 * len(values)] = struct.pack(f">{len(values)}I", *values)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        _claiming(b"stsz", 4, 1, 10**8),  # frames of one byte: FFmpeg would take 7 GB
        _claiming(b"stsz", 4, 0, MAX_SAMPLES + 1),
        _claiming(b"elst", 4, 10**8),
        CLIP + struct.pack(">I4sI4sI4s4I", 40, b"moof", 32, b"traf", 24, b"trun", 0, 10**8, 0, 0),
        CLIP + struct.pack(">I4s", 8, b"cmov"),
    ],
    ids=["sizes", "frames", "edits", "fragments", "compressed"],
)
def test_an_mp4_that_claims_more_frames_than_it_can_have_is_refused(data: bytes) -> None:
    with pytest.raises(ImplausibleHeaderError):
        check_tables(io.BytesIO(data))
    with pytest.raises(UndecodableClipError, match=r"claims|compressed header"):
        decode_clip(data, SHAPE)


@pytest.mark.parametrize("data", [CLIP, b"", b"\0" * 100, CLIP[:40], b"RIFF" + bytes(range(256)), b"\xff" * 100])
def test_tables_of_other_files_are_let_pass(data: bytes) -> None:
    file = io.BytesIO(data)
    check_tables(file)
    assert file.tell() == 0


def test_frames_of_too_many_pixels_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_PIXELS", 16 * 32 - 1)
    for check in (lambda: decode_clip(CLIP, SHAPE), lambda: check_clip(io.BytesIO(CLIP), SHAPE)):
        with pytest.raises(UndecodableClipError, match=r"a picture of 16x32 pixels|does not decode"):
            check()
    with open_video(io.BytesIO(CLIP)) as container, pytest.raises(TooLargeError):
        bound_pixels(container.streams.video[0])


def test_a_decoder_refuses_frames_that_turn_out_larger_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "check_pixels", lambda *_: None)
    monkeypatch.setattr(containers, "MAX_PIXELS", 16 * 32 - 1)
    with open_video(io.BytesIO(CLIP)) as container:
        bound_pixels(container.streams.video[0])
        with pytest.raises(FFmpegError):
            next(container.decode(video=0))


def test_a_picture_of_too_many_pixels_is_refused_by_its_header() -> None:
    buffer = io.BytesIO()
    Image.new("1", (8192, 8193)).save(buffer, "png")
    with pytest.raises(TooLargeError), open_picture(buffer.getvalue()):
        pass
    with pytest.raises(UndecodableClipError, match="a picture of 8193x8192 pixels"):
        decode_picture(buffer.getvalue(), (1, 8193, 8192))


def test_postscript_is_handed_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(OSError, match="cannot identify"), open_picture(tmp_path / "a.png"):
        pass


def test_a_clip_is_checked_frame_by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("room for a whole clip")

    monkeypatch.setattr(decoding, "empty_clips", refuse)
    check_clip(io.BytesIO(CLIP), SHAPE)
    with pytest.raises(UndecodableClipError, match="4 frames decode where the index records 1000000"):
        check_clip(io.BytesIO(CLIP), (10**6, 16, 32))
    with pytest.raises(UndecodableClipError, match="a frame has 16x32 pixels where the index records 512x512"):
        check_clip(io.BytesIO(CLIP), (4, 512, 512))
    for data in (b"", b"nonsense" * 99, CLIP[: CLIP.index(b"mdat") + 20]):
        with pytest.raises(UndecodableClipError):
            check_clip(io.BytesIO(data), SHAPE)


def _is_whole(check: Callable[[bytes], object], data: bytes) -> bool:
    try:
        check(data)
        return True
    except UndecodableClipError:
        return False


def test_a_clip_is_whole_by_the_same_rules_however_it_is_read() -> None:
    for place in range(CLIP.index(b"mdat") + 8, len(CLIP), 37):
        data = bytearray(CLIP)
        data[place] ^= 0x55
        checked = _is_whole(lambda data: check_clip(io.BytesIO(data), SHAPE), bytes(data))
        assert _is_whole(lambda data: decode_clip(data, SHAPE), bytes(data)) == checked, place
