"""The limits of a picture's size, for videos and for stills."""

from __future__ import annotations

from videoqa.errors import PictureTooLarge
from videoqa_worker.settings import FrameLimits

__all__ = ["check_still_size", "check_video_size"]


def check_video_size(width: int, height: int, limits: FrameLimits) -> None:
    """Raises PictureTooLarge if pictures of a video have more pixels than allowed."""
    _check(width, height, limits.max_pixels, "VIDEOQA_MAX_PIXELS")


def check_still_size(width: int, height: int, limits: FrameLimits) -> None:
    """Raises PictureTooLarge if a still picture has more pixels than allowed."""
    _check(width, height, limits.max_image_pixels, "VIDEOQA_MAX_IMAGE_PIXELS")


def _check(width: int, height: int, most: int, variable: str) -> None:
    if width * height > most:
        raise PictureTooLarge(
            f"the picture is {width}x{height}, expected at most {most} pixels; scale it down, or raise the "
            f"worker's {variable}"
        )
