"""Reads a still image as a sampled video of one frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from videoqa.contract import DynamicRange, Warn
from videoqa.errors import (
    NotAVideo,
    SamplingError,
    VideoCorrupt,
    VideoTruncated,
)
from videoqa_worker.frames.budget import no_check
from videoqa_worker.frames.container.animation import is_animated
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.container.heif import HeifError, read_heif
from videoqa_worker.frames.container.sniff import AVIF, HEIF, FileType, identify
from videoqa_worker.frames.decode.heif_decoder import decode_heif
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES
from videoqa_worker.frames.picture.alpha import put_on_white, scale_transparent_colour
from videoqa_worker.frames.picture.colour.colour_profile import convert_to_srgb
from videoqa_worker.frames.picture.shape import Crop
from videoqa_worker.frames.picture.thumbnail import shrink
from videoqa_worker.frames.picture_size import check_still_size
from videoqa_worker.frames.sparse_file import CompleteFile, SparseFile
from videoqa_worker.settings import DEFAULT_LIMITS, FrameLimits

__all__ = ["read_image"]

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "ICO", "CUR", "JPEG2000")
"""The allowed ones of Pillow's some fifty formats; EPS, for example, starts Ghostscript."""
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposes that undo each EXIF orientation (CIPA DC-008, 4.6.4); 1 is upright."""
_NEW_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION, _PHOTOMETRIC = 254, 330, 50706, 262
_SENSOR_COLOURS = (32803, 34892)
"""Values of a TIFF's photometric interpretation for a sensor's raw values."""
_END_OF_JPEG = b"\xff\xd9"

# A decoding process may start no thread.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


@dataclass(frozen=True)
class _Picture:
    """A decoded picture, upright and as RGB."""

    image: Image.Image
    width: int
    """Width of the picture in the file; decoding may have scaled it down."""
    height: int
    format: str | None
    warnings: tuple[Warn, ...]
    dynamic_range: DynamicRange = "sdr"
    tone_mapped: bool = False


def read_image(
    file: SparseFile | str | Path,
    *,
    most_side: int | None = None,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
) -> SampledVideo:
    """Returns the image, upright, on white and in sRGB; the first picture of an animation, with a warning.

    It is scaled down if a side is beyond `most_side`.

    Raises:
        NotAVideo, VideoCorrupt, VideoTruncated, PictureTooLarge.
    """
    check()
    source = CompleteFile(Path(file)) if isinstance(file, str | Path) else file
    file_type = identify(source)
    if file_type.kind != "image":
        raise _explain_refusal(file_type)
    source.ensure([(0, source.size_bytes)])  # Pillow takes a short read for the end of the file
    if file_type == HEIF or (file_type == AVIF and _is_beyond_pillow(source)):
        picture = _read_heif(source, file_type, limits)
    else:
        picture = _read_by_pillow(source, file_type, most_side, limits)
    check()
    pixels = np.ascontiguousarray(picture.image, dtype=np.uint8)
    if most_side is not None:
        pixels = shrink(pixels, most_side)
    frame = Frame(index=0, pts_s=0.0, exact=True, pixels=pixels)
    info = VideoInfo(
        None, None, picture.width, picture.height, None, picture.format,
        dynamic_range=picture.dynamic_range, tone_mapped=picture.tone_mapped, is_image=True,
    )  # fmt: skip
    return SampledVideo((frame,), info, picture.warnings + _warn_if_animated(source, file_type))


def _read_by_pillow(
    source: SparseFile, file_type: FileType, most_side: int | None, limits: FrameLimits
) -> _Picture:
    with closing(FileCursor(source)) as cursor:
        try:
            return _decode_by_pillow(source, cursor, most_side, limits)
        except UnidentifiedImageError as error:
            raise VideoCorrupt(
                f"got {file_type.text} that cannot be decoded; upload it again"
            ) from error
        except (SamplingError, MemoryError):
            raise
        except Exception as error:  # Pillow's readers raise some twenty kinds on damaged files
            if cursor.failure is not None:
                raise cursor.failure from None
            if "truncated" in str(error).lower():
                raise _explain_truncation(file_type) from error
            raise VideoCorrupt(
                f"got {file_type.text} that cannot be decoded: {error}; upload it again"
            ) from error


def _decode_by_pillow(
    source: SparseFile, cursor: FileCursor, most_side: int | None, limits: FrameLimits
) -> _Picture:
    with _own_size_limit(), _open(cursor) as image:
        _refuse_raw(image)
        check_still_size(image.width, image.height, limits)
        kind, (width, height) = image.format, image.size
        if most_side is not None:
            image.draft(None, (most_side, most_side))  # JPEG decodes 1/2 to 1/8 by itself
        scale_transparent_colour(image)
        upright = put_on_white(_rotate_upright(image))
        if upright.size != image.size:
            width, height = height, width
        _refuse_cut_jpeg(image, source)
        rgb, warning = convert_to_srgb(_reduce_to_8_bit(upright), image.info.get("icc_profile"))
    warnings = () if warning is None else (warning,)
    return _Picture(rgb, width, height, kind.lower() if kind else None, warnings)


def _is_beyond_pillow(file: SparseFile) -> bool:
    """Returns True for an AVIF image that is HDR or cropped, to which Pillow pays no heed; for a still one only."""
    if is_animated(file):
        return False
    try:
        picture = read_heif(file)
    except HeifError:
        return False
    is_hdr = picture.colours is not None and picture.colours.dynamic_range != "sdr"
    return is_hdr or any(isinstance(step, Crop) for step in picture.transforms)


def _read_heif(source: SparseFile, file_type: FileType, limits: FrameLimits) -> _Picture:
    try:
        found = decode_heif(source, limits)
        rgb, warning = convert_to_srgb(put_on_white(found.image), found.profile)
    except (SamplingError, MemoryError):
        raise
    except HeifError as error:
        if "truncated" in str(error):
            raise _explain_truncation(file_type) from error
        raise VideoCorrupt(f"got {file_type.text} {error}; convert it to JPEG or PNG") from error
    except LIBRARY_FAILURES as error:
        raise VideoCorrupt(
            f"got {file_type.text} that cannot be decoded: {error}; upload it again"
        ) from error
    warnings = found.warnings if warning is None else (*found.warnings, warning)
    return _Picture(
        rgb,
        rgb.width,
        rgb.height,
        "avif" if file_type == AVIF else "heif",
        warnings,
        found.dynamic_range,
        found.tone_mapped,
    )


def _open(cursor: FileCursor) -> Image.Image:
    return Image.open(cast("IO[bytes]", cursor), formats=FORMATS)


@contextmanager
def _own_size_limit() -> Iterator[None]:
    """Turns Pillow's limit of sizes off, which it takes from a global; `check_still_size` follows."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _rotate_upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation.

    `ImageOps.exif_transpose` also rewrites the EXIF data, and fails if any of it is invalid. In AVIF files
    Pillow puts the container's own rotation and mirroring in its place.
    """
    image.load()
    transpose = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if transpose is None else image.transpose(transpose)


def _reduce_to_8_bit(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits a channel, in a mode of colours or greys.

    Pillow's conversion of 16-bit greys would clip all values above 255 to white.

    Raises:
        NotAVideo: the format does not define white, as in TIFFs of 32-bit integers or floats.
    """
    if image.mode in ("I", "F"):
        raise NotAVideo(
            f"got an image of numbers without a range (mode {image.mode}), expected greys or "
            "colours of 8 or 16 bits; convert it first"
        )
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB")


def _refuse_raw(image: Image.Image) -> None:
    """Raises NotAVideo for a camera's RAW picture in TIFF: the picture to open is a thumbnail.

    Cameras store it first, marked as the reduced version of another one (TIFF/EP, ISO 12234-2).
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    is_reduced = _SUB_IFDS in tags and tags.get(_NEW_SUBFILE_TYPE, 0) == 1
    if _DNG_VERSION in tags or is_reduced or tags.get(_PHOTOMETRIC) in _SENSOR_COLOURS:
        raise NotAVideo(
            "got a camera's RAW picture (DNG or alike), expected a developed one; develop it, and send "
            "the JPEG or PNG"
        )


def _refuse_cut_jpeg(image: Image.Image, file: SparseFile) -> None:
    """Raises VideoTruncated for a JPEG without an end: its decoder then makes up the rest in grey.

    Zeros at the end, as of a download that was interrupted, are lines to it as well.
    """
    if image.format not in ("JPEG", "MPO"):
        return
    descriptor = file.open_file()
    try:
        at = file.size_bytes
        while at > 0:
            begin = max(0, at - (1 << 20))
            if _END_OF_JPEG in os.pread(descriptor, at - begin + 1, begin):
                return
            at = begin
    finally:
        os.close(descriptor)
    raise _explain_truncation(identify(file))


def _warn_if_animated(file: SparseFile, file_type: FileType) -> tuple[Warn, ...]:
    if not is_animated(file):
        return ()
    message = (
        f"got {file_type.text} that is animated, as an image: its first picture was taken; send it "
        "with kind=video for its frames"
    )
    return (Warn(code="animation_as_image", message=message),)


def _explain_truncation(file_type: FileType) -> SamplingError:
    return VideoTruncated(
        f"got {file_type.text} that ends before its last line, expected a complete one; upload it again"
    )


def _explain_refusal(file_type: FileType) -> SamplingError:
    advice = file_type.advice or ("send it as a video input" if file_type.kind == "video" else "")
    hint = f"; {advice}" if advice else ""
    return NotAVideo(f"got {file_type.text}, expected an image{hint}")
