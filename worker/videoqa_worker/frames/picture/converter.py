"""Converts decoded pictures to upright RGB."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from av import VideoFrame

from videoqa.contract import Warn
from videoqa_worker.frames.picture.alpha import has_alpha, mix_with_white, read_alpha
from videoqa_worker.frames.picture.colour.colour_converter import ColourConverter
from videoqa_worker.frames.picture.interlace import Deinterlacer, find_declared_order
from videoqa_worker.frames.picture.orientation import find_display_matrix, rotate_upright
from videoqa_worker.frames.picture.shape import ShapeRule, crop_pixels, stretch_pixels
from videoqa_worker.frames.picture.side_data import accept_unknown_side_data
from videoqa_worker.frames.picture.thumbnail import shrink

__all__ = ["RgbConverter"]

Pixels = npt.NDArray[np.uint8]

_UNUSED_ALPHA = ("rawvideo", "huffyuv", "ffvhuff", "targa", "bmp")
"""Decoders of formats whose fourth byte of a pixel is often left unused, as zeros."""
_LOST_ALPHA = Warn(
    code="transparency_ignored",
    message="the transparency of some pictures cannot be decoded: they were taken as opaque, and what should be "
    "white may have any colour; convert the video to one without transparency",
)

accept_unknown_side_data()


class RgbConverter:
    """Converts the pictures of one video to uint8[H, W, 3], RGB, C-contiguous, as a player shows them.

    The order is that of players: fields, colours, white behind what is transparent, cropping, square pixels, rotation.
    """

    def __init__(
        self,
        shape: ShapeRule,
        colours: ColourConverter,
        most_side: int | None = None,
        *,
        codec: str = "",
        field_order: int = 0,
    ) -> None:
        """
        Arguments:
            most_side: pixels of the longer side, to which larger pictures are scaled down; None: as they are.
            codec: FFmpeg's name of the decoder.
            field_order: FFmpeg's number of the container's field order.
        """
        self._shape = shape
        self._zero_means_none = codec in _UNUSED_ALPHA
        self._most_side = most_side
        self._deinterlacer = Deinterlacer(codec, find_declared_order(codec, field_order))
        self.colours = colours
        self._has_lost_alpha = False

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Warnings about the pictures so far."""
        lost = (_LOST_ALPHA,) if self._has_lost_alpha else ()
        return (*self._deinterlacer.warnings, *self.colours.warnings, *lost, *self._shape.warnings)

    def note_lost_alpha(self) -> None:
        """Notes that the transparency of a picture could not be decoded."""
        self._has_lost_alpha = True

    def deinterlace(
        self, picture: VideoFrame, near: VideoFrame | None, *, is_adjacent: bool
    ) -> VideoFrame:
        """Returns the picture of an interlaced one's first field; others as they are.

        Arguments:
            near: a picture before or after it.
            is_adjacent: that is the very next, or the one right before.
        """
        return self._deinterlacer.convert(picture, near, is_adjacent=is_adjacent)

    def convert(
        self,
        picture: VideoFrame,
        pixel_aspect: Fraction | None = None,
        alpha: VideoFrame | None = None,
    ) -> Pixels:
        """Returns the pixels of a picture, whose own are `pixel_aspect` times as wide as high.

        Arguments:
            alpha: a picture whose luma is its alpha.

        Raises:
            DecodingFailed: FFmpeg's scaler refuses the picture. MemoryError.
        """
        size = self._shape.find_size(picture.width, picture.height, pixel_aspect)
        crop = self._shape.find_crop(picture.width, picture.height)
        if alpha is not None or has_alpha(picture):
            pixels = self._put_on_white(picture, alpha)
        else:
            rgb = self.colours.convert(picture, size if crop is None else None)
            pixels = rgb.to_ndarray().astype(np.uint8, copy=False)
        if crop is not None:
            pixels = crop_pixels(pixels, crop)
        pixels = stretch_pixels(pixels, *size)
        matrix = find_display_matrix(picture)
        if matrix is not None:
            pixels = rotate_upright(pixels, matrix)
        pixels = np.ascontiguousarray(pixels)
        return pixels if self._most_side is None else shrink(pixels, self._most_side)

    def _put_on_white(self, picture: VideoFrame, alpha: VideoFrame | None) -> Pixels:
        rgba = (
            self.colours.convert(picture, with_alpha=True).to_ndarray().astype(np.uint8, copy=False)
        )
        if alpha is not None:
            height, width = rgba.shape[:2]
            rgba[:, :, 3] = stretch_pixels(read_alpha(alpha), width, height)
        return mix_with_white(rgba, zero_means_none=self._zero_means_none)
