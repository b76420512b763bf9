"""Deinterlacing: of two fields woven into one picture, it shows the first, as a player does at its time.

FFmpeg's bwdif takes each missing line from the fields before and after it where nothing moves, and from the
lines above and below it where something does. The picture's own flag tells that it is interlaced; where its
two fields are of one instant all the same (progressive segmented frames), it is left as it is.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.filter import Graph
from av.video.plane import VideoPlane

from videoqa.contract import Warn
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES

__all__ = ["Deinterlacer", "find_declared_order", "is_field"]

Luma = npt.NDArray[np.int16]

_CODECS_OF_FIELDS = ("hevc", "vvc")
_COLUMNS = 100
"""Number of columns to compare, at least."""
_LEAST_CHANGE = 12
"""Difference of two pictures, of 255, from which a pixel is taken to move."""
_LEAST_MOVING = 64
_BAND = 8
"""Lines of a field that are compared together."""
_MOST_UNFIT = 0.1
"""Share of the moving pixels in bands whose fields do not fit, from which a picture is interlaced."""
_UNFLAGGED = ("mjpeg", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "jpeg2000", "png", "hap")
"""Decoders that never flag a picture as interlaced, all of codecs without references."""
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"
_PROGRESSIVE_RATIO = 1.5
"""Factor by which the fields of two pictures must fit worse than those of one, as in FFmpeg's filter `idet`."""


def is_field(codec: str, picture: VideoFrame) -> bool:
    """Returns True if the picture is one field, of half the height.

    FFmpeg joins the fields of all codecs but HEVC's and VVC's, and flags only fields of these as interlaced.
    """
    return codec in _CODECS_OF_FIELDS and picture.interlaced_frame


class Deinterlacer:
    """Deinterlaces the pictures of one video that are flagged so."""

    def __init__(self, codec: str = "", declared: Literal["tff", "bff"] | None = None) -> None:
        """
        Arguments:
            codec: FFmpeg's name of the decoder.
            declared: the field that comes first in pictures without a flag of their own; None: those are progressive.
        """
        self._codec = codec
        self._declared = declared
        self._has_fields = False
        self._problem: str | None = None
        self._is_alone = False
        self._bwdif: _Bwdif | None = None

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """A warning if a picture so far could not be deinterlaced, or only with less detail."""
        if self._has_fields:
            message = (
                "the video stores each field as a picture of its own: a frame shows one of them, stretched to the "
                "full height, at half the vertical detail; convert it to progressive for better frames"
            )
            return (Warn(code="fields_apart", message=message),)
        if self._problem is not None:
            message = f"the video is interlaced, and {self._problem}; convert it to progressive for better frames"
            return (Warn(code="not_deinterlaced", message=message),)
        if self._is_alone:
            message = (
                "the video is interlaced, and frames were deinterlaced from their own lines, which costs "
                "vertical detail: a picture beside them would have to be decoded; convert it to progressive "
                "for better frames"
            )
            return (Warn(code="deinterlaced_alone", message=message),)
        return ()

    def convert(
        self, picture: VideoFrame, near: VideoFrame | None, *, is_adjacent: bool
    ) -> VideoFrame:
        """Returns the picture at the time of its first field.

        Arguments:
            near: a picture before or after it, where one is decoded.
            is_adjacent: that is the very next, or the one right before.
        """
        if not picture.interlaced_frame and self._declared is None:
            return picture
        if is_field(self._codec, picture):
            self._has_fields = True
            return picture
        try:
            if not picture.interlaced_frame:
                picture = self._flag(picture)
            if near is not None and _get_shape(near) != _get_shape(picture):
                near = None
            if near is not None and is_adjacent and _is_progressive(picture, near):
                return picture
            shown = self._filter(picture, near)
        except LIBRARY_FAILURES as error:
            if isinstance(error, MemoryError):
                raise
            self._bwdif = None
            self._problem = f"FFmpeg's filter does not take its pictures ({error})"
            return picture
        if shown is None:
            self._problem = "FFmpeg's filter gave no picture"
            return picture
        shown.colorspace, shown.color_range = picture.colorspace, picture.color_range
        return shown

    def _flag(self, picture: VideoFrame) -> VideoFrame:
        flagged = _Filter(picture, "setfield", f"mode={self._declared}").push(picture)
        return flagged or picture

    def _filter(self, picture: VideoFrame, near: VideoFrame | None) -> VideoFrame | None:
        if near is None:
            self._is_alone = True
            return _convert_alone(picture)
        if self._bwdif is None or self._bwdif.shape != _get_shape(picture):
            self._bwdif = _Bwdif(picture)
        return self._bwdif.convert(picture, near)


def find_declared_order(codec: str, field_order: int) -> Literal["tff", "bff"] | None:
    """Returns the field that comes first by the container, for codecs that do not tell it themselves.

    Arguments:
        codec: FFmpeg's name of the decoder.
        field_order: FFmpeg's number of the order (libavcodec/defs.h), as coded and as shown.
    """
    if codec not in _UNFLAGGED:
        return None
    return "tff" if field_order in (2, 5) else "bff" if field_order in (3, 4) else None


def _get_shape(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


class _Filter:
    """A filter of FFmpeg for pictures of one size and format."""

    def __init__(self, like: VideoFrame, name: str, options: str) -> None:
        self.shape = _get_shape(like)
        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=like.width,
            height=like.height,
            format=like.format,
            time_base=like.time_base or Fraction(1, 1000),
        )
        sink = self._graph.add("buffersink")
        self._graph.link_nodes(source, self._graph.add(name, options), sink)
        self._graph.configure()

    def push(self, picture: VideoFrame) -> VideoFrame | None:
        """Gives it a picture; returns the one that it has done."""
        self._graph.vpush(picture)
        try:
            return self._graph.vpull()
        except BlockingIOError:
            return None


class _Bwdif:
    """FFmpeg's deinterlacer for pictures of one size and format.

    Making it takes as long as filtering a picture of 720x576, so one serves all pictures of a video.
    """

    def __init__(self, like: VideoFrame) -> None:
        self.shape = _get_shape(like)
        self._mark = _Filter(like, "setfield", "mode=prog")
        self._filter = _Filter(like, "bwdif", _OPTIONS)
        for _ in range(2):  # it takes the first picture from its own lines alone
            self._filter.push(like)

    def convert(self, picture: VideoFrame, near: VideoFrame) -> VideoFrame | None:
        """Deinterlaces a picture by one that is near it.

        That one stands for both neighbours: the filter takes what does not change towards it from the other
        field. It is marked as progressive, so that it is not filtered itself.
        """
        marked = self._mark.push(near)
        if marked is None:
            return None
        self._filter.push(marked)
        self._filter.push(picture)
        return self._filter.push(marked)


def _convert_alone(picture: VideoFrame) -> VideoFrame | None:
    """Deinterlaces a picture from its own lines: the filter does so with the first of a stream."""
    alone = _Filter(picture, "bwdif", _OPTIONS)
    alone.push(picture)
    return alone.push(picture)


def _is_progressive(picture: VideoFrame, near: VideoFrame) -> bool:
    """Returns True if both fields show one instant: they fit each other better than any of the neighbour's.

    Only pixels that move are compared, in some of the columns. Each plane and each band of lines must fit: a
    strip that changes with every picture would outvote an object beside it, and some objects move in the
    colours alone.
    """
    planes, others = _read_planes(picture), _read_planes(near)
    fits = [_compare_fields(*pair) for pair in zip(planes, others, strict=True)]
    if not fits or any(fit is None for fit in fits[:1]):
        return False
    return all(fit is not False for fit in fits)


def _compare_fields(lines: Luma, others: Luma) -> bool | None:
    """Returns True if the two fields of a plane show one instant, False if not; None: too little moves."""
    around = lines[:-2] + lines[2:]
    moving = (np.abs(others - lines) > _LEAST_CHANGE)[1:-1]
    own, foreign = (np.abs(around - 2 * part[1:-1]) * moving for part in (lines, others))
    for parity in (0, 1):
        counts, fits, misfits = (_sum_bands(part[parity::2]) for part in (moving, own, foreign))
        if counts.sum() < _LEAST_MOVING:
            return None
        unfit = counts[misfits < _PROGRESSIVE_RATIO * fits].sum()
        if unfit >= max(_LEAST_MOVING / 4, counts.sum() * _MOST_UNFIT):
            return False
    return True


def _sum_bands(lines: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Returns the sum of each band of lines."""
    begins = np.arange(0, max(1, len(lines)), _BAND)
    return np.asarray(np.add.reduceat(lines.sum(axis=1, dtype=np.int64), begins))


def _read_planes(picture: VideoFrame) -> list[Luma]:
    """Returns some columns of each plane in 8 bits; none for formats that store luma amid the colours."""
    about = picture.format
    if not about.is_planar or about.is_rgb or not about.components:
        return []
    bits = about.components[0].bits
    return [_read_columns(plane, bits) for plane in picture.planes[:3]]


def _read_columns(plane: VideoPlane, bits: int) -> Luma:
    memory = cast("memoryview[int]", plane)
    stored = np.frombuffer(memory, np.uint8)
    if bits > 8:
        stored = stored.view(np.uint16)
    stored = stored.reshape(-1, plane.line_size // stored.itemsize)[: plane.height, : plane.width]
    step = plane.width // _COLUMNS | 1  # odd, since what repeats in a picture does so evenly
    return (stored[:, ::step] >> max(0, bits - 8)).astype(np.int16)
