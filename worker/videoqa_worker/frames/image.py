"""Reads a still image as a sampled video of one frame."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from videoqa.errors import NotAVideo, PictureTooLarge, SamplingError, VideoCorrupt
from videoqa_worker.frames.budget import no_check
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.container.sniff import identify
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.sparse_file import CompleteFile, SparseFile
from videoqa_worker.settings import DEFAULT_LIMITS, FrameLimits

__all__ = ["read_image"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
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


def read_image(
    file: SparseFile | str | Path,
    *,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
) -> SampledVideo:
    """Returns the image, upright by its EXIF orientation; the first frame of an animation.

    Raises:
        NotAVideo, VideoCorrupt, PictureTooLarge.
    """
    check()
    source = CompleteFile(Path(file)) if isinstance(file, str | Path) else file
    try:
        with closing(FileCursor(source)) as cursor, _open(cursor) as image:
            _check_size(image, limits)
            kind = image.format
            upright = _reduce_to_8_bit(_rotate_upright(image)).convert("RGB")
    except UnidentifiedImageError as error:
        raise _explain_refusal(source) from error
    except Image.DecompressionBombError as error:
        raise PictureTooLarge(f"{error}; scale the image down") from error
    except (SamplingError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise some twenty kinds on damaged files
        raise VideoCorrupt(
            f"got {identify(source).text} that cannot be decoded: {error}; upload it again"
        ) from error
    check()
    pixels = np.ascontiguousarray(upright, dtype=np.uint8)
    frame = Frame(index=0, pts_s=0.0, exact=True, pixels=pixels)
    info = VideoInfo(
        None, None, upright.width, upright.height, None, kind.lower() if kind else None
    )
    return SampledVideo((frame,), info)


def _open(cursor: FileCursor) -> Image.Image:
    return Image.open(cast("IO[bytes]", cursor), formats=FORMATS)


def _rotate_upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation.

    `ImageOps.exif_transpose` also rewrites the EXIF data, and fails if any of it is invalid.
    """
    image.load()
    transpose = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if transpose is None else image.transpose(transpose)


def _reduce_to_8_bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit greys to 8 bits; Pillow's conversion would clip all values above 255 to white.

    Raises:
        NotAVideo: the format does not define white, as in TIFFs of 32-bit integers or floats.
    """
    if image.mode in ("I", "F"):
        raise NotAVideo(
            f"got an image of numbers without a range (mode {image.mode}), expected greys or "
            "colours of 8 or 16 bits; convert it first"
        )
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _check_size(image: Image.Image, limits: FrameLimits) -> None:
    if image.width * image.height > limits.max_pixels:
        raise PictureTooLarge(
            f"the picture is {image.width}x{image.height}, expected at most "
            f"{limits.max_pixels} pixels; scale it down"
        )


def _explain_refusal(file: SparseFile) -> SamplingError:
    file_type = identify(file)
    if file_type.kind == "image":
        return VideoCorrupt(f"got {file_type.text} that cannot be decoded; upload it again")
    hint = "; send it as a video input" if file_type.kind == "video" else ""
    return NotAVideo(f"got {file_type.text}, expected an image{hint}")
