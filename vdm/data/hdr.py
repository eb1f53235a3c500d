"""High dynamic range: conversion of PQ and HLG signals to light, and of light to pictures of standard range.

ITU-R BT.2100-2 defines both signals, BT.2408-7 the level of white, BT.2390-10 how highlights are compressed, and
BT.1886 the display that pictures of standard range are meant for. All functions are pure; colours lie along the first
axis, and float32 stays float32.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer

Transfer = Literal["PQ", "HLG"]
Floats = Float[np.ndarray, "..."]
Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""x and y of red, green and blue."""

PEAK = 1000.0
"""cd/m2 of the display assumed for HLG, and clipping level of PQ; BT.2100's reference for both."""
WHITE = 203.0
"""cd/m2 of reference white, such as paper or captions (BT.2408-7, table 1): the brightest that SDR can show."""

BT709: Chromaticities = (0.640, 0.330), (0.300, 0.600), (0.150, 0.060)
BT2020: Chromaticities = (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)
P3: Chromaticities = (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)
_D65 = 0.3127, 0.3290

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PQ_PEAK = 10_000.0
_A = 0.17883277
_B, _C = 1 - 4 * _A, 0.5 - _A * math.log(4 * _A)
LUMA_OF_BT2020 = 0.2627, 0.6780, 0.0593


def pq_to_light(signal: Floats) -> Floats:
    """Return cd/m2 of a PQ signal from 0 to 1 (BT.2100-2, table 4, EOTF)."""
    power = np.power(np.clip(signal, 0, 1), 1 / _M2)
    return _PQ_PEAK * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)


def light_to_pq(light: Floats) -> Floats:
    """Return the PQ signal of 0 to 10,000 cd/m2 (BT.2100-2, table 4, inverse EOTF)."""
    power = np.power(np.clip(light / _PQ_PEAK, 0, 1), _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_to_scene(signal: Floats) -> Floats:
    """Return the light of the scene, from 0 to 1, of an HLG signal from 0 to 1 (BT.2100-2, table 5, inverse OETF)."""
    signal = np.clip(signal, 0, 1)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)


def scene_to_display(scene: Float[np.ndarray, "3 ..."], peak: float = PEAK) -> Float[np.ndarray, "3 ..."]:
    """Return cd/m2 on an HLG display without ambient light (BT.2100-2, table 5, OOTF, and note 5f for its gamma).

    Args:
        scene: Red, green and blue of BT.2020, from 0 to 1.
        peak: cd/m2 of the display's white.
    """
    gamma = 1.2 + 0.42 * math.log10(peak / 1000)
    luminance = sum(share * light for share, light in zip(LUMA_OF_BT2020, scene, strict=True))
    return peak * np.power(luminance, gamma - 1) * scene


def compress_highlights(signal: Floats, peak: float = PEAK, target: float = WHITE) -> Floats:
    """Return the PQ signal for a dimmer display: dark parts are unchanged, bright parts follow a spline.

    BT.2390-10, section 5.4.1, for black levels of zero.

    Args:
        signal: PQ signal; above ``peak`` it is clipped.
        peak: cd/m2 of the display that it is made for.
        target: cd/m2 of the display that shows it, less than ``peak``.
    """
    white, shown = light_to_pq(np.array([peak, target])).tolist()
    most = shown / white
    knee = 1.5 * most - 0.5
    relative = np.clip(signal / white, 0, 1)
    t = np.maximum(relative - knee, 0) / (1 - knee)
    bend = t * t * (3 - 2 * t)
    spline = (1 - bend) * knee + t * (1 - t) * (1 - t) * (1 - knee) + bend * most
    return np.where(relative < knee, relative, spline) * white


def highlight_gain(light: Floats) -> Floats:
    """Return the factor by which ``compress_highlights`` scales light in cd/m2."""
    compressed = pq_to_light(compress_highlights(light_to_pq(light)))
    return np.where(light > 1e-3, compressed / np.maximum(light, 1e-3), 1.0)


def light_to_sdr(light: Floats) -> Floats:
    """Return the signal, from 0 to 1, with which an SDR display shows light from 0 to 1 of its white (BT.1886)."""
    return np.power(np.clip(light, 0, 1), 1 / 2.4)


def rgb_to_rgb(source: Chromaticities, target: Chromaticities = BT709) -> Float[np.ndarray, "3 3"]:
    """Return the matrix from light in one set of primaries to another, both of white D65 (SMPTE RP 177)."""
    return np.linalg.inv(_rgb_to_xyz(target)) @ _rgb_to_xyz(source)


def _rgb_to_xyz(primaries: Chromaticities) -> Float[np.ndarray, "3 3"]:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    x, y = _D65
    return columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))


def normalized(
    codes: Integer[np.ndarray, "3 ..."], depth: int, is_full_range: bool, is_rgb: bool
) -> Float[np.ndarray, "3 ..."]:
    """Return signals of integer codes (BT.2100-2, table 9).

    Args:
        codes: Y, Cb and Cr, or R, G and B.
        depth: Bits of each.
        is_full_range: Whether they go from 0 to 2^depth - 1, else from 16 to 235, or 240 for chroma, of 8 bits.
        is_rgb: Whether they are R, G and B.

    Returns:
        From 0 to 1; chroma from -0.5 to 0.5.
    """
    unit = 1 << (depth - 8)
    luma = (0, (1 << depth) - 1) if is_full_range else (16 * unit, 219 * unit)
    chroma = luma if is_rgb else (128 * unit, luma[1] if is_full_range else 224 * unit)
    ranges = (luma, chroma, chroma)
    return np.stack(
        [(plane - np.float32(zero)) / np.float32(one) for plane, (zero, one) in zip(codes, ranges, strict=True)]
    )


def yuv_to_rgb(
    signal: Float[np.ndarray, "3 ..."], red: float = LUMA_OF_BT2020[0], blue: float = LUMA_OF_BT2020[2]
) -> Float[np.ndarray, "3 ..."]:
    """Return R'G'B' of Y'Cb'Cr' of non-constant luminance (BT.2100-2, table 6).

    Args:
        signal: Y' from 0 to 1, Cb' and Cr' from -0.5 to 0.5.
        red: Share of red in Y'.
        blue: Share of blue in Y'.
    """
    y, cb, cr = signal
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b])


def to_sdr(
    signal: Float[np.ndarray, "3 ..."], transfer: Transfer, primaries: Chromaticities = BT2020
) -> Float[np.ndarray, "3 ..."]:
    """Return R'G'B' of BT.709 of an R'G'B' signal of high dynamic range.

    Highlights are compressed by the brightest of red, green and blue, so that hues stay; colours that BT.709 lacks are
    clipped to those that it has.

    Args:
        signal: From 0 to 1.
        transfer: What kind of signal.
        primaries: Of its colours.

    Returns:
        From 0 to 1, where 1 is ``WHITE``.
    """
    light = pq_to_light(signal) if transfer == "PQ" else scene_to_display(hlg_to_scene(signal))
    shown = light * (highlight_gain(light.max(0)) / WHITE)
    matrix = rgb_to_rgb(primaries).astype(signal.dtype)
    return light_to_sdr(np.tensordot(matrix, shown, 1))
