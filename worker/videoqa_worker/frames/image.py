"""A still picture as a sampled video of one frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from videoqa.errors import NotAVideo, PictureTooLarge, SamplingError, VideoCorrupt
from videoqa_worker.frames.budget import no_check
from videoqa_worker.frames.container.sniff import look_at
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.settings import DEFAULT_LIMITS, FrameLimits

__all__ = ["read_image"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Of Pillow's some fifty formats; EPS, for one, starts Ghostscript."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF (CIPA DC-008, 4.6.4); 1 is upright."""


def read_image(
    path: str | Path,
    *,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
) -> SampledVideo:
    """The picture, upright by its EXIF orientation; of an animation, the first one.

    Raises:
        NotAVideo, VideoCorrupt, PictureTooLarge.
    """
    check()
    file = Path(path)
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, limits)
            kind = image.format
            upright = _eight_bit(_turned(image)).convert("RGB")
    except UnidentifiedImageError as error:
        raise _refusal(file) from error
    except Image.DecompressionBombError as error:
        raise PictureTooLarge(f"{error}; scale the image down before") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise VideoCorrupt(
            f"looks like {look_at(file).text}, and cannot be read: {error}"
        ) from error
    check()
    pixels = np.ascontiguousarray(upright, dtype=np.uint8)
    frame = Frame(index=0, pts_s=0.0, exact=True, pixels=pixels)
    info = VideoInfo(
        None, None, upright.width, upright.height, None, kind.lower() if kind else None
    )
    return SampledVideo((frame,), info)


def _turned(image: Image.Image) -> Image.Image:
    """`ImageOps.exif_transpose` also writes the EXIF data anew, and fails if any of it is odd."""
    image.load()
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow cuts what is above 255 instead: all but the darkest 256 of 65,536 greys become white.

    Raises:
        NotAVideo: nothing says what is white, as in TIFFs of 32 bits or floats.
    """
    if image.mode in ("I", "F"):
        raise NotAVideo(
            f"got an image of numbers without a range (mode {image.mode}), expected greys or "
            "colours of 8 or 16 bits; convert it before"
        )
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _check_size(image: Image.Image, limits: FrameLimits) -> None:
    if image.width * image.height > limits.max_pixels:
        raise PictureTooLarge(
            f"the picture is {image.width}x{image.height}, expected at most "
            f"{limits.max_pixels} pixels; scale it down before"
        )


def _refusal(path: Path) -> SamplingError:
    look = look_at(path)
    if look.kind == "image":
        return VideoCorrupt(f"looks like {look.text}, and cannot be read")
    hint = "; send it as a video input" if look.kind == "video" else ""
    return NotAVideo(f"got bytes that are no image: it looks like {look.text}{hint}")
