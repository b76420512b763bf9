"""The pictures of one run of packets, from a position of an open video on.

A stream tells for each picture whether it is exact: whether anything that it may refer to could not be
decoded. Knows nothing of targets but the tick at which decoding may end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from errno import EINVAL
from itertools import chain

import numpy as np
from av import Packet, VideoFrame
from av.error import FFmpegError
from av.stream import Stream

from videoqa.errors import PictureTooLarge
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.demuxer import OpenVideo, read_packets
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.decode.nal_units import decode_packet
from videoqa_worker.frames.decode.skip import NonRefSkipper

__all__ = ["DecodedPicture", "PictureStream"]


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
        except FFmpegError:
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
        except FFmpegError as error:
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
        for picture in pictures:
            decoded = self._place(picture)
            if decoded is not None:
                yield decoded

    def _place(self, picture: VideoFrame) -> DecodedPicture | None:
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
        trusted = self.timeline is None or self.timeline.trusted
        of_before = self._gop_start is not None and pts < self._gop_start
        damaged = self._damaged_before if of_before else self._damaged
        decoded = DecodedPicture(picture, pts, count, trusted and not damaged, self.lost)
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

    def _refuse_growth(self, error: FFmpegError) -> None:
        """Raises PictureTooLarge if the error is a picture larger than the limit.

        H.264 keeps the size that it refused, other decoders keep none.
        """
        decoder, limit = self._video.decoder, self._video.limits.max_pixels
        refused = decoder.width == 0 and error.errno == EINVAL
        if refused or decoder.width * decoder.height > limit:
            raise PictureTooLarge(
                f"a picture of the video has more than {limit} pixels; scale the video down"
            ) from error

    def _refuse_shortage(self, error: FFmpegError) -> None:
        """Raises MemoryError if memory is short, since the packet itself may be sound.

        H.264 reports invalid data in that case, so this tries to allocate a picture.
        """
        if isinstance(error, MemoryError):
            raise error
        np.empty((self._video.decoder.height, self._video.decoder.width, 3), dtype=np.uint8)
