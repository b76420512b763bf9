"""The shape of the pictures as the container declares it: clean aperture or cropping, and pixel aspect ratio.

FFmpeg applies a codec's own cropping (H.264, HEVC), but not a container's, and PyAV does not pass it on.
"""

from __future__ import annotations

from fractions import Fraction

from videoqa.contract import Warn
from videoqa_worker.frames.container.boxes import SampleEntry, read_sample_entry
from videoqa_worker.frames.container.demuxer import OpenVideo
from videoqa_worker.frames.container.elements import read_track_videos
from videoqa_worker.frames.picture.shape import Crop, DeclaredShape

__all__ = ["read_declared_shape"]

_LEAST_SHARE = 16
"""A crop to less than this part of the width or height is taken for a mistake."""


def read_declared_shape(video: OpenVideo) -> DeclaredShape:
    """Reads the shape from an MP4's boxes or a Matroska file's header."""
    if "mp4" in video.format:
        entry = read_sample_entry(video.file, video.stream.id)
        return DeclaredShape() if entry is None else _shape_of_entry(entry)
    if "matroska" in video.format:
        # FFmpeg does not tell the track's number, but leaves their order, with attached pictures behind them.
        place = [stream.index for stream in video.container.streams.video].index(video.stream.index)
        for track in read_track_videos(video.file)[place : place + 1]:
            left, top, right, bottom = track.crops
            crop = Crop(left, top, track.width - left - right, track.height - top - bottom)
            return _check(track.width, track.height, crop, None, track.is_turned)
    return DeclaredShape()


def _shape_of_entry(entry: SampleEntry) -> DeclaredShape:
    width, height = entry.width, entry.height
    whole = Crop(0, 0, width, height)
    if entry.clean_aperture is None:
        return _check(width, height, whole, None, entry.is_turned)
    crop = _crop_to_aperture(width, height, entry.clean_aperture)
    shape = _check(width, height, crop, None, entry.is_turned)
    track_width, track_height = entry.track_size
    if shape.crop is None or entry.has_pixel_aspect or not (track_width and track_height):
        return shape
    # FFmpeg divides the track's size by the stored one, the track has that of the clean aperture.
    whole_track = (track_width, track_height) == (width << 16, height << 16)
    shown = whole if whole_track else shape.crop
    aspect = Fraction(track_width * shown.height, track_height * shown.width)
    return _check(width, height, crop, aspect, entry.is_turned)


def _crop_to_aperture(width: int, height: int, aperture: tuple[int, ...]) -> Crop:
    """Returns the clean aperture as a crop (ISO/IEC 14496-12, 12.1.4); an empty one if it is invalid."""
    if min(aperture[1::2]) <= 0:
        return Crop(0, 0, 0, 0)
    wide, high, right, down = (
        Fraction(n, d) for n, d in zip(aperture[::2], aperture[1::2], strict=True)
    )
    left, top = (width - wide) / 2 + right, (height - high) / 2 + down
    return Crop(round(left), round(top), round(wide), round(high))


def _check(
    width: int, height: int, crop: Crop, pixel_aspect: Fraction | None, is_turned: bool
) -> DeclaredShape:
    """Returns the shape; with a warning instead of the crop, if it leaves next to nothing or lies outside."""
    if crop == Crop(0, 0, width, height):
        return DeclaredShape(width, height, None, pixel_aspect, is_turned)
    is_inside = (
        crop.left >= 0
        and crop.top >= 0
        and crop.left + crop.width <= width
        and crop.top + crop.height <= height
    )
    if is_inside and crop.width * _LEAST_SHARE >= width and crop.height * _LEAST_SHARE >= height:
        return DeclaredShape(width, height, crop, pixel_aspect, is_turned)
    message = (
        f"the file says to show {crop.width}x{crop.height} pixels at ({crop.left}, {crop.top}) of its "
        f"pictures of {width}x{height}, which is outside of them or next to nothing: whole pictures "
        "were used; correct the file's clean aperture or cropping if they show too much"
    )
    return DeclaredShape(
        width, height, None, None, is_turned, (Warn(code="cropping_ignored", message=message),)
    )
