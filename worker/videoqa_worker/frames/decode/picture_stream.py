"""The pictures of one run of packets, from a position of an open video on.

A stream tells for each picture whether it is exact: whether anything that it may refer to could not be
decoded. Knows nothing of targets but the tick at which decoding may end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from errno import EINVAL, ERANGE
from fractions import Fraction
from itertools import chain

import numpy as np
from av import Packet, VideoFrame
from av.stream import Stream

from videoqa.errors import PictureTooLarge
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.demuxer import OpenVideo, read_packets
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.decode.alpha_layer import AlphaLayer
from videoqa_worker.frames.decode.nal_units import decode_packet
from videoqa_worker.frames.decode.skip import NonRefSkipper
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES
from videoqa_worker.frames.picture.interlace import is_field
from videoqa_worker.frames.picture_size import check_video_size

__all__ = ["DecodedPicture", "Neighbour", "PictureStream"]

_ALWAYS = -(1 << 63)
"""A tick before all others."""
_LIKE_MPEG4 = frozenset(
    (
        "mpeg4",
        "h263",
        "h263p",
        "h263i",
        "flv",
        "msmpeg4v1",
        "msmpeg4v2",
        "msmpeg4",
        "wmv1",
        "wmv2",
        "rv10",
        "rv20",
    )
)
_LEAST_ASPECT_OF_FRAMES = Fraction(2, 3)
_BYTES_PER_PIXEL = 12
"""Memory of three pictures and their tables, as a decoder of MPEG-4 needs it."""


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A picture near an interlaced one, with whose fields its own are compared."""

    picture: VideoFrame
    pts: int
    is_adjacent: bool = False
    """True if it is the very next or the one right before."""


@dataclass(frozen=True, eq=False)
class DecodedPicture:
    """A decoded picture with its time and number."""

    picture: VideoFrame
    pts: int
    count: int | None
    """Number of the picture, if all pictures before it were decoded too."""
    exact: bool
    after_loss: bool = False
    """True if a picture right before it is lost, so the one before that is shown for too long."""
    pixel_aspect: Fraction | None = None
    """Width / height of its pixels; None: square."""
    is_woven: bool = False
    """True if it is interlaced, and both fields are in it."""
    neighbour: Neighbour | None = None
    """A picture near it, if it is interlaced and one is decoded."""
    alpha: VideoFrame | None = None
    """A picture whose luma is this one's alpha, where that is stored beside it."""
    alpha_lost: bool = False
    """True if it has alpha that could not be decoded."""


class PictureStream:
    """Decodes the packets that follow in an open video; to be closed."""

    def __init__(
        self,
        video: OpenVideo,
        skip: NonRefSkipper,
        budget: DecodeBudget,
        timeline: Timeline | None,
        *,
        count: int | None,
        until: int | None = None,
    ) -> None:
        """Decodes nothing yet; `count` is the number of the next picture, if it is known."""
        self.timeline = timeline
        self.until = until
        """Decoding may end with the first packet whose dts is after this tick."""
        self.packets = self._read_packets()
        """The packets that follow."""
        self.drained = False
        """True if the decoder has lost its references and must start at a keyframe."""
        self.lost = False
        """True if a picture since the last one could not be decoded."""
        self.times_contradict = False
        """True once a picture came after one with a later time."""
        self._video, self._skip, self._budget = video, skip, budget
        self._pictures = self._decode(self.packets)
        self._count = count
        self._gop_start: int | None = None
        self._damaged = self._damaged_before = False
        """True if a picture of this GOP (of the GOP before) could not be decoded."""
        self._last_pts: int | None = None
        self._last_woven: Neighbour | None = None
        self._alpha = AlphaLayer(video)
        self._aspects: list[tuple[int, Fraction | None]] = []
        """Pixel aspect ratios, each with the pts of the packet from which on it holds."""
        self._held_packets = 0
        """Packets sent to the decoder minus pictures received from it."""
        self._has_joined = not video.may_begin_anywhere or count is None
        """False while undecodable packets may be leading ones, whose references were never sent."""
        skip.forget()

    def close(self) -> None:
        """Drops the generators, which refer to the stream as it refers to them."""
        self.packets, self._pictures = iter(()), iter(())

    def decode_next(self) -> DecodedPicture | None:
        """Decodes the next picture; returns None at the end."""
        return next(self._pictures, None)

    def begin_with(self, packet: Packet[Stream]) -> None:
        """Begins with a packet that was read already."""
        self._pictures = self._decode(chain([packet], self.packets))

    def decode_alone(self, packet: Packet[Stream]) -> DecodedPicture | None:
        """Decodes the picture of one packet, and none of those that follow."""
        alone = (decoded for each in (packet, None) for decoded in self._decode_packet(each))
        return next(alone, None)

    def _read_packets(self) -> Iterator[Packet[Stream]]:
        try:
            for packet in read_packets(self._video.container, self._video.stream):
                self._budget.tick()
                yield packet
        except LIBRARY_FAILURES:
            self._mark_loss()  # an unreadable rest counts as the end of the file

    def _decode(self, source: Iterator[Packet[Stream]]) -> Iterator[DecodedPicture]:
        for n, packet in enumerate(source):
            if n == 0 and self._by_count and not packet.is_keyframe:
                self._mark_loss()  # decoders then repeat the first picture, which shifts all others
            if self.until is not None and packet.dts is not None and packet.dts > self.until:
                self.drained = True
                break
            if packet.is_keyframe and not self._by_count:
                self._gop_start = packet.pts
                self._damaged_before, self._damaged = self._damaged, False
            yield from self._decode_packet(packet)
        yield from self._decode_packet(None)  # pictures that the decoder still holds back

    def _decode_packet(self, packet: Packet[Stream] | None) -> Iterator[DecodedPicture]:
        try:
            if not self._by_count and self._skip.prepare(packet):
                self._count = None
            pictures, complete = decode_packet(
                self._video, packet, is_empty=self._held_packets == 0
            )
        except LIBRARY_FAILURES as error:
            self._refuse_growth(error)
            self._refuse_shortage(error)
            if packet is None or not self._is_leading(packet):
                self._mark_loss()
            return
        if not complete:
            self._mark_loss()
        self._held_packets += (packet is not None) - len(pictures)
        missing = self._held_packets > self._video.decoder.reorder_depth
        if self._by_count and (missing or (packet is not None and len(pictures) > 1)):
            self._mark_loss()  # one missing or too many, without an error, shifts the rest
        layers: list[VideoFrame] = []
        alpha_decodes = True
        if packet is not None:
            self._follow_aspect(packet)
            layers, alpha_decodes = self._alpha.decode(packet)
        for picture in pictures:
            check_video_size(picture.width, picture.height, self._video.limits)
            alpha = next((layer for layer in layers if layer.pts == picture.pts), None)
            decoded = self._place(picture, alpha, alpha_lost=not alpha_decodes)
            if decoded is not None:
                yield decoded

    def _follow_aspect(self, packet: Packet[Stream]) -> None:
        """Notes the decoder's pixel aspect ratio, which is that of this packet's picture."""
        aspect, pts = self._video.pixel_aspect, packet.pts
        if not self._aspects or aspect != self._aspects[-1][1]:
            self._aspects = [*self._aspects[-1:], (pts if pts is not None else _ALWAYS, aspect)]

    def _find_aspect(self, picture: VideoFrame) -> Fraction | None:
        """Returns the pixel aspect ratio of a picture, whose pixels are twice as high if it is one field.

        Encoders state the ratio of both fields together; one below two thirds is taken for that of a field.
        """
        stated = self._find_stated_aspect(picture)
        if not is_field(self._video.decoder.name, picture):
            return stated
        aspect = stated or Fraction(1)
        return aspect if 0 < aspect < _LEAST_ASPECT_OF_FRAMES else aspect / 2

    def _find_stated_aspect(self, picture: VideoFrame) -> Fraction | None:
        """Returns the ratio that the stream states for a picture, which may come after packets of another one."""
        for since, aspect in reversed(self._aspects):
            if picture.pts is None or picture.pts >= since:
                return aspect
        return self._aspects[0][1] if self._aspects else self._video.pixel_aspect

    def _place(
        self, picture: VideoFrame, alpha: VideoFrame | None, *, alpha_lost: bool
    ) -> DecodedPicture | None:
        """Gives a picture its time; returns None if it is corrupt or has none."""
        count, pts = self._count, picture.pts
        if self._count is not None:
            self._count += 1
        stamps = self.timeline.stamps if self.timeline else None
        if stamps is not None and count is not None:
            pts = stamps[count] if count < len(stamps) else None
        if pts is None and self.timeline is None:
            pts = 0  # any time will do to tell whether a first picture exists
        self.times_contradict |= pts is not None and self._goes_back(pts)
        if picture.is_corrupt or pts is None or self._goes_back(pts):
            self._mark_loss()
            return None
        self._last_pts, self._has_joined = pts, True
        is_woven = picture.interlaced_frame and not is_field(self._video.decoder.name, picture)
        trusted = self.timeline is None or self.timeline.trusted
        of_before = self._gop_start is not None and pts < self._gop_start
        damaged = self._damaged_before if of_before else self._damaged
        decoded = DecodedPicture(
            picture,
            pts,
            count,
            trusted and not damaged,
            self.lost,
            self._find_aspect(picture),
            is_woven,
            self._last_woven if is_woven else None,
            alpha,
            alpha_lost,
        )
        self._last_woven = Neighbour(picture, pts) if is_woven else None
        self.lost = False
        return decoded

    def _goes_back(self, pts: int) -> bool:
        return self._last_pts is not None and pts <= self._last_pts

    def _is_leading(self, packet: Packet[Stream]) -> bool:
        """Returns True for a leading packet, whose references were sent before the file begins."""
        if self._has_joined or self._by_count:
            return False
        start = self._gop_start
        return start is None or (packet.pts is not None and packet.pts < start)

    def _mark_loss(self) -> None:
        self._damaged = self.lost = True
        if not self._by_count:
            self._count = None

    @property
    def _by_count(self) -> bool:
        return self.timeline is not None and self.timeline.stamps is not None

    def _refuse_growth(self, error: Exception) -> None:
        """Raises PictureTooLarge if the error is a picture larger than the limit.

        H.264 keeps the size that it refused, dav1d has an error of its own for it, other decoders keep none.
        """
        decoder, number = self._video.decoder, getattr(error, "errno", None)
        refused = decoder.width == 0 and number == EINVAL
        refused |= decoder.name == "libdav1d" and number == ERANGE
        if refused or decoder.width * decoder.height > self._video.limits.max_pixels:
            raise self._make_size_error() from error

    def _refuse_shortage(self, error: Exception) -> None:
        """Raises MemoryError if memory is short, since the packet itself may be sound.

        H.264 reports invalid data in that case, so this tries to allocate a picture. MPEG-4's decoders report
        short memory for a picture larger than the limit, so this tries to allocate several.

        Raises:
            MemoryError. PictureTooLarge: memory is not short.
        """
        decoder = self._video.decoder
        if not isinstance(error, MemoryError):
            np.empty((decoder.height, decoder.width, 3), dtype=np.uint8)
        elif decoder.name not in _LIKE_MPEG4:
            raise error
        else:
            np.empty((decoder.height, decoder.width, _BYTES_PER_PIXEL), dtype=np.uint8)
            raise self._make_size_error() from error

    def _make_size_error(self) -> PictureTooLarge:
        return PictureTooLarge(
            f"a picture of the video has more than {self._video.limits.max_pixels} pixels; scale the video "
            "down, or raise the worker's VIDEOQA_MAX_PIXELS"
        )
