"""Converts decoded pictures to upright RGB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.buffer import Buffer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from videoqa.contract import Warn
from videoqa.errors import DecodingFailed

__all__ = ["RgbConverter"]

Pixels = npt.NDArray[np.uint8]

_UNSPECIFIED_MATRIX, _UNSPECIFIED_RANGE = 2, 0
_BT709, _BT601, _BT2020 = 1, 5, 9
_MATRIX_NAMES = {
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
"""Matrix coefficients (ITU-T H.273, table 4) that FFmpeg names and its scaler does not have."""
_NEAREST_MATRIX = {8: _BT709, 10: _BT2020, 11: _BT2020, 14: _BT2020, 15: _BT2020} | dict.fromkeys(
    (16, 17), _BT709
)
_MATRIX_OF_PRIMARIES = {1: _BT709, 5: _BT601, 6: _BT601, 7: 7, 9: _BT2020}
"""Matrix coefficients that belong to each value of the primaries."""


def _add_unknown_type(kind: type[Type], value: object) -> Type:
    """Returns a new member for a number that PyAV's table of side data does not have."""
    member: Type = object.__new__(kind)
    member._name_ = f"UNKNOWN_{value}"
    member._value_ = value  # type: ignore[assignment]
    return member


# One unknown number otherwise makes all side data of a picture unreadable, the display matrix too.
# PyAV 18.1 lacks those of EXIF and of 3D reference displays, for example.
Type._missing_ = classmethod(_add_unknown_type)  # type: ignore[assignment]


class RgbConverter:
    """Converts the pictures of one video to uint8[H, W, 3], RGB, C-contiguous, upright.

    One for all pictures of a video, since creating the scaler takes 0.6 ms at 1080p. FFmpeg passes
    rotation and mirroring on as a display matrix, which is applied here.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._approximated: str | None = None

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """A warning if the colours of a picture so far were converted by another matrix or range."""
        if self._approximated is None:
            return ()
        return (Warn(code="colours_approximated", message=self._approximated),)

    def convert(self, picture: VideoFrame) -> Pixels:
        """Returns the pixels of a picture.

        Raises:
            DecodingFailed: FFmpeg's scaler refuses the picture. MemoryError.
        """
        try:
            rgb = self._reformat(picture)
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            rgb = self._approximate(picture, error)
        pixels = rgb.to_ndarray().astype(np.uint8, copy=False)
        # PyAV 18.1 annotates this mapping as a TypedDict without this key.
        side_data = cast("Mapping[str, Buffer]", picture.side_data)
        try:
            matrix = side_data["DISPLAYMATRIX"]
        except KeyError:
            return np.ascontiguousarray(pixels)
        return np.ascontiguousarray(
            _rotate_upright(pixels, np.frombuffer(bytes(matrix), dtype=np.int32))
        )

    def _reformat(self, picture: VideoFrame) -> VideoFrame:
        return self._reformatter.reformat(picture, format="rgb24", threads=1)

    def _approximate(self, picture: VideoFrame, error: FFmpegError) -> VideoFrame:
        """Converts by the nearest matrix and range that the scaler has."""
        matrix, colour_range = picture.colorspace, picture.color_range
        by_primaries = _MATRIX_OF_PRIMARIES.get(picture.color_primaries, _BT709)
        nearest = by_primaries if matrix in (12, 13) else _NEAREST_MATRIX.get(matrix)
        tries = [
            (nearest or _UNSPECIFIED_MATRIX, colour_range),
            (nearest or matrix, _UNSPECIFIED_RANGE),
            (nearest or _UNSPECIFIED_MATRIX, _UNSPECIFIED_RANGE),
        ]
        for other_matrix, other_range in tries:
            picture.colorspace, picture.color_range = other_matrix, other_range
            try:
                rgb = self._reformat(picture)
            except FFmpegError as again:
                if isinstance(again, MemoryError):
                    raise
            else:
                name = _MATRIX_NAMES.get(matrix, "unknown")
                self._approximated = (
                    f"the video's colours have matrix coefficients {matrix} ({name}) and range "
                    f"{colour_range}, which the converter does not have: the nearest that it has were "
                    "used, so colours are not exact; convert the video to BT.709 for exact ones"
                )
                return rgb
        raise DecodingFailed(
            f"got pictures of format {picture.format.name} with matrix coefficients {matrix} that "
            f"cannot be converted to RGB ({error}); encode the video again, as yuv420p for example"
        ) from error


def _rotate_upright(pixels: Pixels, matrix: npt.NDArray[np.int32]) -> Pixels:
    """Applies a display matrix that is one of the eight orientations; ignores others.

    `matrix` is a, b, u, c, d, v, x, y, w: x' = ax + cy, y' = bx + dy (libavutil/display.h). A tilt
    of 3 degrees, for example, is left as stored.
    """
    a, b, c, d = (int(matrix[at]) for at in (0, 1, 3, 4))
    if a == d == 0 and b and c:
        pixels, right, down = pixels.transpose(1, 0, 2), c, b
    elif b == c == 0 and a and d:
        right, down = a, d
    else:
        return pixels
    return pixels[:: 1 if down > 0 else -1, :: 1 if right > 0 else -1]
