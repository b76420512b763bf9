"""Square pixels and cropping: the part of a stored picture that is shown, in the shape in which it is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image

from videoqa.contract import Warn

__all__ = ["Crop", "DeclaredShape", "ShapeRule", "crop_pixels", "stretch_pixels"]

Pixels = npt.NDArray[np.uint8]

_MOST_ASPECT = 10
"""Pixels that are longer than this are taken for a mistake: the longest in use are 2.4 times as wide as high."""


@dataclass(frozen=True)
class Crop:
    """The part of a stored picture that is shown, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class DeclaredShape:
    """The shape of the pictures as the container declares it."""

    width: int = 0
    """Width of the stored pictures to which `crop` applies."""
    height: int = 0
    crop: Crop | None = None
    pixel_aspect: Fraction | None = None
    """Width / height of a pixel, where FFmpeg's own is wrong."""
    is_turned: bool = False
    """True if pictures are to be turned by 90 or 270 degrees."""
    warnings: tuple[Warn, ...] = field(default=())


class ShapeRule:
    """The rule by which the pictures of one video get their shape on screen."""

    def __init__(self, declared: DeclaredShape, max_pixels: int) -> None:
        self._declared = declared
        self._max_pixels = max_pixels
        self._warning: Warn | None = None

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Warnings about shapes that were ignored so far."""
        return self._declared.warnings + (() if self._warning is None else (self._warning,))

    def find_crop(self, width: int, height: int) -> Crop | None:
        """Returns the part to show of a stored picture of this size; None: all of it."""
        declared = self._declared
        return declared.crop if (width, height) == (declared.width, declared.height) else None

    def find_size(self, width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
        """Returns the size in square pixels, before rotation, of a stored picture of this size.

        The shorter side of the pixels is stretched, as mpv and Chromium do: no pixel is lost. A size
        beyond `max_pixels` is scaled down in its shape.
        """
        crop = self.find_crop(width, height)
        if crop is not None:
            width, height = crop.width, crop.height
        aspect = self._limit_aspect(self._declared.pixel_aspect or pixel_aspect)
        wide, high = (width * aspect, height) if aspect > 1 else (width, height / aspect)
        if wide * high > self._max_pixels and aspect != 1:
            scale = math.sqrt(self._max_pixels / (wide * high))
            return max(1, int(wide * scale)), max(1, int(high * scale))
        return round(wide), round(high)

    def _limit_aspect(self, aspect: Fraction | None) -> Fraction:
        """Returns the pixel aspect ratio; 1 with a warning, if it is absurd."""
        if aspect is None or aspect <= 0:
            return Fraction(1)
        if aspect * _MOST_ASPECT >= 1 and aspect <= _MOST_ASPECT:
            return aspect
        message = (
            f"the file says that its pixels are {float(aspect):.4g} times as wide as high, expected at "
            f"most {_MOST_ASPECT} times or a {_MOST_ASPECT}th: square ones were assumed; correct the "
            "file's sample aspect ratio if the shape is wrong"
        )
        self._warning = Warn(code="pixel_aspect_ignored", message=message)
        return Fraction(1)


def crop_pixels(pixels: Pixels, crop: Crop) -> Pixels:
    """Returns the part to show of a picture."""
    return pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def stretch_pixels(pixels: Pixels, width: int, height: int) -> Pixels:
    """Returns the picture in this size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
