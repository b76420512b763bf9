"""The display matrix of a picture: rotation and mirroring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.buffer import Buffer

from videoqa_worker.frames.library_failures import LIBRARY_FAILURES

__all__ = ["find_display_matrix", "rotate_upright"]

_NUMBERS = 9

Pixels = npt.NDArray[np.uint8]


def find_display_matrix(picture: VideoFrame) -> npt.NDArray[np.int32] | None:
    """Returns the nine numbers of the picture's display matrix; None: it is stored upright."""
    try:
        # PyAV 18.1 annotates this mapping as a TypedDict without this key.
        side_data = cast("Mapping[str, Buffer]", picture.side_data)
        return np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32, count=_NUMBERS)
    except LIBRARY_FAILURES:  # none, or one that is cut off
        return None


def rotate_upright(pixels: Pixels, matrix: npt.NDArray[np.int32]) -> Pixels:
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
