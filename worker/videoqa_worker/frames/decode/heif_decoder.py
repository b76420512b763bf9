"""Decodes the pictures of HEIF files by FFmpeg, and puts their tiles together.

libheif was tried: its HEVC decoder starts a thread for each picture, which a decoding process may not, and
its wheels bring 26 MB, among them an encoder. FFmpeg's decoders are those of videos, and are confined already.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av import Packet, VideoFrame
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from videoqa.contract import DynamicRange, Warn
from videoqa.errors import PictureTooLarge
from videoqa_worker.frames.container.heif import (
    CodedItem,
    HeifError,
    HeifPicture,
    Mirroring,
    QuarterTurns,
    Tiling,
    read_heif,
)
from videoqa_worker.frames.picture.alpha import read_alpha
from videoqa_worker.frames.picture.colour.colour_converter import ColourConverter
from videoqa_worker.frames.picture.colour.colours import (
    BT709,
    FULL_RANGE,
    LIMITED_RANGE,
    UNSPECIFIED,
    Colours,
)
from videoqa_worker.frames.picture.shape import Crop
from videoqa_worker.frames.picture_size import check_still_size
from videoqa_worker.frames.sparse_file import SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["DecodedHeif", "decode_heif"]

Pixels = npt.NDArray[np.uint8]

_CODECS = {"hvc1": "hevc", "av01": "libdav1d", "jpeg": "mjpeg"}
_MAX_ITEM_BYTES = 256 << 20
_BT601 = 6


@dataclass(frozen=True)
class DecodedHeif:
    """A decoded picture, upright."""

    image: Image.Image
    """Its mode is RGB, or RGBA if it has alpha."""
    profile: bytes | None
    dynamic_range: DynamicRange
    tone_mapped: bool
    warnings: tuple[Warn, ...]


def decode_heif(file: SparseFile, limits: FrameLimits) -> DecodedHeif:
    """Decodes the primary picture of a complete file.

    Raises:
        HeifError: it cannot be decoded. PictureTooLarge. FFmpegError.
    """
    picture = read_heif(file)
    check_still_size(*picture.declared_size, limits)
    decoder = _Decoder(file, picture, limits)
    pixels = decoder.decode(picture.colour)
    if picture.alpha is not None:
        alpha = decoder.decode(picture.alpha, luma=True)
        pixels = _join_alpha(pixels, alpha, premultiplied=picture.premultiplied)
    turned = np.ascontiguousarray(_transform(pixels, picture))
    colours = decoder.colours
    profile = None if colours.tone_mapped else picture.profile
    return DecodedHeif(
        Image.fromarray(turned),
        profile,
        colours.dynamic_range,
        colours.tone_mapped,
        colours.warnings,
    )


class _Decoder:
    """Decodes coded pictures of one file."""

    def __init__(self, file: SparseFile, picture: HeifPicture, limits: FrameLimits) -> None:
        self._file, self._limits = file, limits
        self._tags, self._has_profile = picture.colours, picture.profile is not None
        self.colours = ColourConverter(hdr=limits.hdr)

    def decode(self, tiling: Tiling, *, luma: bool = False) -> Pixels:
        """Returns a picture as uint8[H, W, 3], or its luma as uint8[H, W]."""
        convert = read_alpha if luma else self._convert
        first = convert(self._decode_item(tiling.items[0]))
        if tiling.size is None:
            return first
        height, width = first.shape[:2]
        whole_width, whole_height = tiling.size
        if width * tiling.columns < whole_width or height * tiling.rows < whole_height:
            raise HeifError("whose tiles do not fill it")
        whole = np.empty((whole_height, whole_width, *first.shape[2:]), dtype=np.uint8)
        for n, item in enumerate(tiling.items):
            tile = first if n == 0 else convert(self._decode_item(item))
            if tile.shape != first.shape:
                raise HeifError("whose tiles differ in size")
            row, column = divmod(n, tiling.columns)
            place = whole[row * height : (row + 1) * height, column * width : (column + 1) * width]
            place[:] = tile[: place.shape[0], : place.shape[1]]
        return whole

    def _decode_item(self, item: CodedItem) -> VideoFrame:
        decoder = cast("VideoCodecContext", av.CodecContext.create(_CODECS[item.codec], "r"))
        decoder.thread_type, decoder.thread_count = "NONE", 1
        decoder.options = {"max_pixels": str(self._limits.max_image_pixels)}
        if item.codec != "av01":
            decoder.options |= {"err_detect": "explode"}
        if item.configuration:
            decoder.extradata = item.configuration
        found = [
            *decoder.decode(Packet(self._read_item(item))), *decoder.decode(None)
        ]  # fmt: skip
        if len(found) != 1 or found[0].is_corrupt:
            raise HeifError("of which a picture does not decode")
        return found[0]

    def _read_item(self, item: CodedItem) -> bytes:
        if sum(size for _, size in item.extents) > _MAX_ITEM_BYTES:
            raise PictureTooLarge(
                f"a picture of the file has more than {_MAX_ITEM_BYTES} bytes; scale it down"
            )
        descriptor = self._file.open_file()
        try:
            content = b"".join(os.pread(descriptor, size, at) for at, size in item.extents)
        finally:
            os.close(descriptor)
        if len(content) != sum(size for _, size in item.extents):
            raise HeifError("that ends before its pictures do: the file is truncated")
        return content

    def _convert(self, picture: VideoFrame) -> Pixels:
        if self._tags is not None:
            tags = self._tags
            picture.color_range = FULL_RANGE if tags.is_full_range else LIMITED_RANGE
            picture.color_primaries, picture.color_trc = tags.primaries, tags.transfer
            if tags.matrix != UNSPECIFIED:
                picture.colorspace = tags.matrix
        if self._has_profile and Colours.of(picture).dynamic_range == "sdr":
            picture.color_primaries = BT709  # the profile converts them, and once is enough
        if picture.colorspace == UNSPECIFIED:
            picture.colorspace = _BT601  # the default of the standard (ISO/IEC 23000-22, 7.3.6.4)
        return self.colours.convert(picture).to_ndarray().astype(np.uint8, copy=False)


def _join_alpha(pixels: Pixels, alpha: Pixels, *, premultiplied: bool) -> Pixels:
    """Returns uint8[H, W, 4]; alpha of another size is scaled."""
    height, width = pixels.shape[:2]
    if alpha.shape != (height, width):
        alpha = np.asarray(Image.fromarray(alpha).resize((width, height)))
    if premultiplied:
        with_one = np.maximum(alpha, 1)[:, :, None].astype(np.uint16)
        pixels = np.minimum(255, pixels.astype(np.uint16) * 255 // with_one).astype(np.uint8)
    return np.dstack([pixels, alpha])


def _transform(pixels: Pixels, picture: HeifPicture) -> Pixels:
    """Crops, turns and mirrors the picture in the order of its properties."""
    for step in picture.transforms:
        if isinstance(step, QuarterTurns):
            pixels = np.rot90(pixels, step.count)
        elif isinstance(step, Mirroring):
            pixels = pixels[:, ::-1] if step.is_horizontal else pixels[::-1]
        else:
            pixels = _crop(pixels, step)
    return pixels


def _crop(pixels: Pixels, crop: Crop) -> Pixels:
    """Returns what a crop leaves of the picture; all of it, if that is nothing."""
    height, width = pixels.shape[:2]
    left, top = max(0, crop.left), max(0, crop.top)
    right, bottom = min(width, crop.left + crop.width), min(height, crop.top + crop.height)
    return pixels[top:bottom, left:right] if left < right and top < bottom else pixels
