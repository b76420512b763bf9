"""A decoded picture as upright RGB."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from av import VideoFrame

__all__ = ["to_rgb"]


def to_rgb(picture: VideoFrame) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3], RGB, C-contiguous. FFmpeg hands rotation on as data; it is applied here."""
    pixels = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns), dtype=np.uint8)
