"""Colour tags of a picture: which matrix turns its Y'CbCr into RGB (ITU-T H.273, table 4)."""

from __future__ import annotations

from av import VideoFrame

from videoqa_worker.frames.picture.colour.colours import BT601, BT709, BT2020, SMPTE240M

__all__ = [
    "choose_untagged_matrix",
    "find_nearest_matrix",
    "has_luma",
    "name_matrix",
]

_NAMES = {
    0: "none, as for RGB, though it is stored as Y'CbCr",
    1: "BT.709",
    2: "unspecified",
    4: "FCC",
    5: "BT.601",
    6: "BT.601",
    7: "SMPTE 240M",
    9: "BT.2020",
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "derived from the primaries",
    13: "derived from the primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
"""Matrix coefficients that FFmpeg names."""
_NEAREST = {8: BT709, 10: BT2020, 11: BT2020, 14: BT2020, 15: BT2020, 16: BT709, 17: BT709}
_OF_PRIMARIES = {1: BT709, 5: BT601, 6: BT601, 7: SMPTE240M, 9: BT2020}
"""Matrix coefficients that belong to each value of the primaries."""
_HD_WIDTH, _SD_HEIGHT = 1280, 576


def has_luma(picture: VideoFrame) -> bool:
    """Returns True for a picture of luma and chroma, which takes a matrix to convert."""
    about = picture.format
    return not about.is_rgb and not about.has_palette and len(about.components) >= 3


def choose_untagged_matrix(picture: VideoFrame) -> int:
    """Returns the matrix that players take for a picture without one.

    mpv and libplacebo take BT.709 from 1280 pixels of width or above 576 lines, and else BT.601. The
    scaler itself would take BT.601 for all.
    """
    if picture.color_primaries == BT2020:
        return BT2020
    is_hd = picture.width >= _HD_WIDTH or picture.height > _SD_HEIGHT
    return BT709 if is_hd else BT601


def find_nearest_matrix(picture: VideoFrame) -> int:
    """Returns the nearest matrix that the scaler has."""
    if picture.colorspace in (12, 13):
        return _OF_PRIMARIES.get(picture.color_primaries, BT709)
    return _NEAREST.get(picture.colorspace) or choose_untagged_matrix(picture)


def name_matrix(matrix: int) -> str:
    """Returns a name of matrix coefficients, for people."""
    return _NAMES.get(matrix, "unknown")
