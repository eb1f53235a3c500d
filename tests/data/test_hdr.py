"""The formulas of high dynamic range against the numbers that the ITU publishes, and files by all who read them."""

from pathlib import Path

import av
import numpy as np
import pytest

from data_pipelines.decoding import thumbnail
from tests.data.test_frames import READERS, Reader
from vdm.data import hdr
from vdm.data.hdr import Transfer


@pytest.mark.parametrize(
    ("light", "signal"),
    [(0, 0.0), (0.1, 0.0623), (1, 0.1499), (10, 0.2997), (26, 0.38), (100, 0.5081), (203, 0.58), (1000, 0.7518)]
    + [(4000, 0.9026), (10_000, 1.0)],
)
def test_pq_has_the_published_levels(light: float, signal: float) -> None:
    """BT.2408-7, tables 1 and 2, and BT.2390-10: 58% is reference white, 38% the 18% grey card at 26 cd/m2."""
    found = hdr.light_to_pq(np.array([float(light)]))
    assert found == pytest.approx(signal, abs=0.001)
    assert hdr.pq_to_light(found) == pytest.approx(light, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("signal", "scene"), [(0, 0), (0.25, 1 / 48), (0.5, 1 / 12), (0.75, 0.2650), (1, 1)])
def test_hlg_has_the_published_light_of_the_scene(signal: float, scene: float) -> None:
    """BT.2100-2, table 5: half of the signal is for light up to a twelfth, by a square root."""
    assert hdr.hlg_to_scene(np.array([float(signal)])) == pytest.approx(scene, abs=1e-4)


@pytest.mark.parametrize(("signal", "light"), [(0.75, 203), (0.38, 26), (1, 1000)])
def test_hlg_has_the_published_light_on_a_display_of_1000(signal: float, light: float) -> None:
    """BT.2408-7, table 1."""
    gray = np.full(3, float(signal))
    assert hdr.scene_to_display(hdr.hlg_to_scene(gray)) == pytest.approx(np.full(3, light), rel=0.01)


def test_gamma_of_an_hlg_display_grows_with_its_peak() -> None:
    """BT.2100-2, note 5f: 1.2 at 1000 cd/m2 and 1.33 at 2000."""
    scene = np.full(3, 0.1)
    for peak, gamma in ((1000, 1.2), (2000, 1.2 + 0.42 * np.log10(2))):
        assert hdr.scene_to_display(scene, peak) == pytest.approx(peak * scene**gamma)


def test_primaries_are_converted_by_the_published_matrix() -> None:
    """BT.2407-0, section 2; its inverse is BT.2087-0, equation 4."""
    to_709 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    to_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    np.testing.assert_allclose(hdr.rgb_to_rgb(hdr.BT2020), to_709, atol=1e-4)
    np.testing.assert_allclose(hdr.rgb_to_rgb(hdr.BT709, hdr.BT2020), to_2020, atol=1e-4)


def test_codes_are_the_published_ones() -> None:
    """BT.2100-2, table 9: of 10 bits 64 is black, 940 white, 512 without colour; of 12 bits four times as much."""
    codes = np.array([[64, 940], [512, 960], [64, 512]])
    expected = np.array([[0, 1], [0, 0.5], [-0.5, 0]])
    np.testing.assert_allclose(hdr.normalized(codes, 10, is_full_range=False, is_rgb=False), expected, atol=1e-6)
    np.testing.assert_allclose(hdr.normalized(4 * codes, 12, is_full_range=False, is_rgb=False), expected, atol=1e-6)
    full = hdr.normalized(np.array([[0, 1023], [512, 512], [512, 512]]), 10, is_full_range=True, is_rgb=False)
    np.testing.assert_allclose(full, [[0, 1], [0, 0], [0, 0]], atol=1e-6)


def to_yuv(signal: np.ndarray) -> np.ndarray:
    """BT.2100-2, table 6, of R'G'B' along the first axis."""
    r, g, b = signal
    y = 0.2627 * r + 0.6780 * g + 0.0593 * b
    return np.stack([y, (b - y) / 1.8814, (r - y) / 1.4746])


def test_colours_go_through_luma_and_chroma_and_back() -> None:
    signal = np.random.default_rng(0).random((3, 100))
    np.testing.assert_allclose(hdr.yuv_to_rgb(to_yuv(signal)), signal, atol=1e-4)


def test_highlights_are_compressed_as_published() -> None:
    """BT.2390-10, section 5.4.1: nothing changes below the knee, the peak becomes the target, and order is kept."""
    white, target = hdr.light_to_pq(np.array([1000.0, 203.0]))
    signal = np.linspace(0, white, 500)
    compressed = hdr.compress_highlights(signal)
    knee = (1.5 * target / white - 0.5) * white
    below = signal <= knee
    np.testing.assert_allclose(compressed[below], signal[below])
    assert (np.diff(compressed) > 0).all()
    assert np.abs(np.diff(compressed, 2)).max() < 1e-4  # no corner at the knee
    assert compressed[-1] == pytest.approx(target)
    assert hdr.compress_highlights(np.ones(1)) == pytest.approx(target)


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
def test_greys_stay_grey_and_dark_ones_keep_their_light(transfer: Transfer) -> None:
    """On a display of BT.1886 whose white has 203 cd/m2, grey of 26 is seen at 26 cd/m2."""
    sdr = hdr.to_sdr(np.full((3, 1), 0.38), transfer)[:, 0]
    assert np.ptp(sdr) < 1e-6
    assert 203 * sdr[0] ** 2.4 == pytest.approx(26, rel=0.01)
    white = hdr.to_sdr(np.full((3, 1), 0.58 if transfer == "PQ" else 0.75), transfer)[0, 0]
    assert 0.88 < white < 0.92
    assert hdr.to_sdr(np.ones((3, 1)), transfer) == pytest.approx(np.ones((3, 1)))


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
def test_single_precision_is_enough(transfer: Transfer) -> None:
    signal = np.random.default_rng(0).random((3, 10_000))
    difference = hdr.to_sdr(signal.astype(np.float32), transfer) - hdr.to_sdr(signal, transfer)
    assert np.abs(difference).max() < 1 / 255


COLOURS = np.array([[0.38] * 3, [0.58] * 3, [0.5, 0.4, 0.35], [0.35, 0.45, 0.5], [0.7, 0.69, 0.68], [0.1] * 3])
"""Signals in stripes of 16 columns."""


def write_hdr(
    path: Path, transfer: int, full_range: bool = False, pix_fmt: str = "yuv420p10le", matrix: int = 9
) -> Path:
    """Write eight frames of ``COLOURS``; numbers are those of ITU-T H.273."""
    height, width = 32, 16 * len(COLOURS)
    planes = np.repeat(np.rint(_codes(to_yuv(COLOURS.T), full_range)), 16, 1)
    tags = f"transfer={transfer}:colorprim=9:colormatrix={matrix}:range={'full' if full_range else 'limited'}"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx265", rate=8, options={"x265-params": f"lossless=1:log-level=none:{tags}"})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        for _ in range(8):
            frame = av.VideoFrame(width, height, "yuv444p10le")
            for plane, row in zip(frame.planes, planes, strict=True):
                rows = np.zeros((height, plane.line_size // 2), "<u2")
                rows[:, :width] = row
                plane.update(rows.tobytes())
            frame.color_range = 2 if full_range else 1
            made = frame.reformat(format=pix_fmt, dst_color_range=frame.color_range)
            made.color_trc, made.color_primaries, made.colorspace = transfer, 9, matrix
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return path


def _codes(yuv: np.ndarray, full_range: bool) -> np.ndarray:
    """BT.2100-2, table 9, for 10 bits."""
    y, *chroma = yuv
    if full_range:
        return np.stack([1023 * y, *(1023 * c + 512 for c in chroma)])
    return np.stack([876 * y + 64, *(896 * c + 512 for c in chroma)])


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("number", "transfer"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("full_range", [False, True])
def test_all_readers_map_alike(tmp_path: Path, read: Reader, number: int, transfer: Transfer, full_range: bool) -> None:
    expected = 255 * hdr.to_sdr(COLOURS.T, transfer).T

    seen = read(write_hdr(tmp_path / "a.mp4", number, full_range))

    if seen.shape[2] == 96:
        np.testing.assert_allclose(seen[1, 16, 8::16], expected, atol=2)
    else:  # scaled by half, and the middle cut out
        np.testing.assert_allclose(seen[1, 8, 4::8], expected[2:4], atol=2)


def test_what_looks_for_cuts_sees_mapped_pictures(tmp_path: Path) -> None:
    with av.open(write_hdr(tmp_path / "a.mp4", 16)) as container:
        frame = next(container.decode(video=0))
    small = thumbnail(frame, 16, 48)
    np.testing.assert_allclose(small[8, 4::8], 255 * hdr.to_sdr(COLOURS.T, "PQ").T, atol=3)
