import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace, Interpolation

from vdm.data.scaling import RGBScaler

ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@pytest.mark.parametrize("colorspace", [None, Colorspace.ITU709])
@pytest.mark.parametrize("size", [(32, 40), (64, 96), (80, 130), (23, 57)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p10le", "rgb24"])
def test_values_are_those_of_scaling_to_interleaved_rgb(
    pixel_format: str, size: tuple[int, int], colorspace: Colorspace | None
) -> None:
    """FFmpeg's own way to what is wanted, which is slow."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    scale = RGBScaler()
    for picture in pixels:
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
        direct = frame.reformat(
            size[1], size[0], format="rgb24", src_colorspace=colorspace, interpolation=ACCURATE, threads=1
        )
        if colorspace is not None:
            frame.colorspace = colorspace
        np.testing.assert_array_equal(scale(frame, *size), direct.to_ndarray())
