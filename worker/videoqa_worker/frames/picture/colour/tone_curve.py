"""HDR to SDR as formulas: the steps from a signal to what an SDR display gets, and the roll-off of highlights.

SDR white is 203 cd/m2 (ITU-R BT.2408), so a picture that was graded in SDR and converted to HLG or PQ by the
usual ways comes back. Brighter light rolls off by the curve of ITU-R BT.2390 (section 5.4), applied to the
largest of the three components, so that hues stay. HLG's system gamma acts on each component, as in the
converters of FFmpeg (zimg): BT.2100 has it act on luminance, which makes colours paler than the same scene has
in SDR. Colours beyond BT.709's gamut are cut off at it, as by zimg: those within are not moved for their sake.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from videoqa.contract import DynamicRange
from videoqa_worker.frames.picture.colour.colours import (
    BT709,
    BT2020,
    DCI_P3,
    DISPLAY_P3,
    Colours,
)

__all__ = [
    "LUMA_WEIGHTS",
    "LightPath",
    "encode_sdr",
    "find_light_path",
    "find_nearest_colours",
    "roll_off",
]

Floats = npt.NDArray[np.float64]

_WHITE_NITS, _HLG_NITS = 203.0, 1000.0
_DISPLAY_GAMMA = 2.4
_HLG_GAMMA = 1.2
_A = 0.17883277
_B, _C = 1 - 4 * _A, 0.5 - _A * math.log(4 * _A)
_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
_XY: dict[int, tuple[tuple[float, float], ...]] = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""Chromaticities of red, green and blue by number of the primaries. White is D65; that of others is shown as it."""
_D65 = (0.3127, 0.3290)
_LUMA = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Luma weights of red and blue by number of the matrix."""
LUMA_WEIGHTS = (0.2126, 0.7152, 0.0722)
"""Luma weights of BT.709's red, green and blue."""


def _invert(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


_LMS_TO_BT2020 = _invert(np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096)
_ICTCP_TO_LMS = {
    "pq": _invert(np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096),
    "hlg": _invert(np.array([[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]]) / 4096),
}
_IPT_TO_LMS = np.array(
    [[1, 0.0975689, 0.205226], [1, -0.1138760, 0.133217], [1, 0.0326151, -0.676887]]
)
_CROSSTALK = _invert(0.02 * np.ones((3, 3)) + 0.94 * np.eye(3))
_XYZ_TO_LMS = np.array(
    [[0.40024, 0.70760, -0.08081], [-0.22630, 1.16532, 0.04570], [0.0, 0.0, 0.91822]]
)


_YCGCO = np.array([[1.0, -1.0, 1.0], [1.0, 1.0, 0.0], [1.0, -1.0, -1.0]])
_YCGCO_MATRIX, _CHROMA_DERIVED, _ICTCP, _IPT = 8, 12, 14, 15
_SAME: Floats = np.eye(3)
_OF_LIGHT: dict[DynamicRange, tuple[int, ...]] = {
    "pq": (_ICTCP, _IPT), "hlg": (_ICTCP,), "sdr": ()
}  # fmt: skip
"""Numbers of the matrices that are upon the light of cones, not of displays, by dynamic range."""


@dataclass(frozen=True)
class Step:
    """One step towards light: a matrix, and a curve upon each of the three components."""

    matrix: Floats
    curve: Callable[[Floats], Floats]
    """Takes values from 0 to 1."""


@dataclass(frozen=True)
class LightPath:
    """The way from Y'CbCr (luma 0 to 1, chroma -0.5 to 0.5) to light, of which SDR white is 1."""

    steps: tuple[Step, ...]
    to_own: Floats
    """The matrix from the last step's values to the light of the picture's primaries."""
    to_bt709: Floats
    """The matrix from the last step's values to the light of BT.709's primaries."""


def find_light_path(colours: Colours) -> LightPath:
    """Returns the way to light for pictures of these colours."""
    kind = colours.dynamic_range
    to_light = partial(_find_light, dynamic_range=kind)
    if colours.matrix == _ICTCP and kind == "hlg":
        scene = Step(_ICTCP_TO_LMS[kind], _decode_hlg)
        display = Step(_LMS_TO_BT2020, _find_hlg_light)
        return LightPath((scene, display), _SAME, _find_matrix(BT2020))
    if colours.matrix in (_ICTCP, _IPT):
        to_lms, to_own = _ICTCP_TO_LMS["pq"], _LMS_TO_BT2020
        if colours.matrix == _IPT:
            to_xyz = _invert(_XYZ_TO_LMS) @ _CROSSTALK
            to_lms, to_own = _IPT_TO_LMS, _invert(_find_xyz_matrix(BT2020)) @ to_xyz
        return LightPath((Step(to_lms, to_light),), to_own, _find_matrix(BT2020) @ to_own)
    to_signal = Step(_find_rgb_matrix(colours), to_light)
    return LightPath((to_signal,), _SAME, _find_matrix(colours.primaries))


def find_nearest_colours(colours: Colours, *, has_luma: bool) -> Colours:
    """Returns the colours with BT.2020's matrix and primaries instead of those whose formulas are not known here.

    Arguments:
        has_luma: the pictures are stored as luma and chroma, not as RGB.
    """
    matrices = (*_LUMA, _YCGCO_MATRIX, _CHROMA_DERIVED, *_OF_LIGHT[colours.dynamic_range])
    if has_luma and colours.matrix not in matrices:
        colours = replace(colours, matrix=BT2020)
    return colours if colours.primaries in _XY else replace(colours, primaries=BT2020)


def encode_sdr(light: Floats) -> Floats:
    """Returns the signal of an SDR display for light from 0 to 1."""
    return np.asarray(np.clip(light, 0.0, 1.0) ** (1 / _DISPLAY_GAMMA))


def _find_rgb_matrix(colours: Colours) -> Floats:
    """Returns the matrix from Y'CbCr to R'G'B'; that of BT.2020, if the picture's has none."""
    if colours.matrix == _YCGCO_MATRIX:
        return _YCGCO
    kr, kb = _LUMA.get(colours.matrix, _LUMA[BT2020])
    if colours.matrix == _CHROMA_DERIVED:
        kr, _, kb = _find_xyz_matrix(colours.primaries)[1]
    of_red, of_blue = 2 * (1 - kr), 2 * (1 - kb)
    kg = 1 - kr - kb
    return np.array(
        [[1.0, 0.0, of_red], [1.0, -kb * of_blue / kg, -kr * of_red / kg], [1.0, of_blue, 0.0]]
    )


def _find_light(signal: Floats, dynamic_range: DynamicRange) -> Floats:
    """Returns the light of a display for each component of a signal from 0 to 1; SDR white is 1."""
    if dynamic_range == "pq":
        return _decode_pq(signal) / _WHITE_NITS
    if dynamic_range == "hlg":
        return _find_hlg_light(_decode_hlg(signal))
    return np.asarray(signal**_DISPLAY_GAMMA)


def _decode_hlg(signal: Floats) -> Floats:
    """Returns the scene's light, from 0 to 1."""
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)


def _find_hlg_light(scene: Floats) -> Floats:
    """Returns the display's light for that of the scene."""
    return np.asarray(scene**_HLG_GAMMA * (_HLG_NITS / _WHITE_NITS))


def roll_off(light: Floats, peak: float) -> Floats:
    """Maps light up to `peak` to at most 1: BT.2390's curve, a line up to its knee and a Hermite spline beyond."""
    if peak < 1.001:
        return np.minimum(light, 1.0)
    source = _encode_pq(np.array(peak * _WHITE_NITS))
    signal = np.minimum(_encode_pq(light * _WHITE_NITS) / source, 1.0)
    most = _encode_pq(np.array(_WHITE_NITS)) / source
    knee = 1.5 * most - 0.5
    t = (signal - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    return _decode_pq(np.where(signal < knee, signal, spline) * source) / _WHITE_NITS


def _decode_pq(signal: Floats) -> Floats:
    """Returns cd/m2 (SMPTE ST 2084)."""
    power = signal ** (1 / _M2)
    nits = 10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)
    return np.asarray(nits)


def _encode_pq(nits: Floats) -> Floats:
    power = (np.maximum(nits, 0) / 10000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _find_matrix(primaries: int) -> Floats:
    """Returns the matrix from linear light in these primaries to BT.709's."""
    to_bt709 = _invert(_find_xyz_matrix(BT709))
    return np.asarray(to_bt709 @ _find_xyz_matrix(primaries))


def _find_xyz_matrix(primaries: int) -> Floats:
    """Returns the matrix from linear light in these primaries to XYZ."""
    xy = np.array(_XY.get(primaries, _XY[BT709]))
    corners = np.stack([xy[:, 0], xy[:, 1], 1 - xy.sum(axis=1)]) / xy[:, 1]
    white = np.array([_D65[0] / _D65[1], 1.0, (1 - sum(_D65)) / _D65[1]])
    return np.asarray(corners * np.linalg.solve(corners, white))
