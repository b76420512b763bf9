"""The difference of two pictures, at thumbnail size: by place and colour, and by colour alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image

__all__ = ["Thumbnail", "differ", "is_cut", "make_thumbnail"]

_WIDTH, _HEIGHT = 64, 36
_LEVELS = 8
"""Levels of each colour of a histogram."""
_LEAST_CHANGE = 15.0
"""Mean change of a pixel's hue, saturation and value, of 255, as PySceneDetect's content detector sums it up.
Within a calm shot, keyframes differ by less than 13."""
_LEAST_CUT = 27.0
"""Mean change of pictures that follow one another, at which PySceneDetect cuts."""
_LEAST_COLOURS = 0.2
"""Share of the pixels that have other colours than before."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A small picture, prepared for comparing."""

    hsv: npt.NDArray[np.int16]
    """int16[H, W, 3], each 0 to 255."""
    histogram: npt.NDArray[np.float64]
    """Share of the pixels of each colour; its sum is 1."""


def make_thumbnail(picture: VideoFrame, scaler: VideoReformatter) -> Thumbnail:
    """Scales a decoded picture down, whatever its shape is; a scaler that is kept need not set itself up anew."""
    rgb = scaler.reformat(
        picture, width=_WIDTH, height=_HEIGHT, format="rgb24", interpolation="AREA", threads=1
    ).to_ndarray()
    levels = rgb.reshape(-1, 3) // (256 // _LEVELS)
    colours = (levels[:, 0] * _LEVELS + levels[:, 1]).astype(np.int64) * _LEVELS + levels[:, 2]
    histogram = np.bincount(colours, minlength=_LEVELS**3) / len(colours)
    hsv = np.asarray(Image.fromarray(rgb).convert("HSV")).astype(np.int16)
    return Thumbnail(hsv, histogram)


def is_cut(one: Thumbnail, other: Thumbnail) -> bool:
    """Returns True if there is a cut between two pictures that follow one another."""
    return float(np.abs(one.hsv - other.hsv).mean()) >= _LEAST_CUT


def differ(one: Thumbnail, other: Thumbnail) -> bool:
    """Returns True if the pictures may well be of two shots."""
    change = float(np.abs(one.hsv - other.hsv).mean())
    same = float(np.minimum(one.histogram, other.histogram).sum())
    return change >= _LEAST_CHANGE or 1 - same >= _LEAST_COLOURS
