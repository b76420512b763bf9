"""Walks over the pictures of a video in presentation order and stops at those on screen.

It decodes forward, and seeks where a keyframe lies between here and the target. Each seek is
verified, and taken back if it fails: it must land on a keyframe at or before the target that the
timeline lists, and the decoder must begin with that very picture. Pictures shown before the keyframe
are dropped, since after a seek their references may be missing (open GOPs).

It decodes no more than it must: see `skip`. Where the next target lies behind another keyframe,
decoding ends with the first packet whose dts is past the target: all pictures up to the target have
come by then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from errno import EINVAL
from itertools import chain
from types import TracebackType
from typing import Self

import numpy as np
from av import Packet, VideoFrame
from av.error import FFmpegError
from av.stream import Stream

from videoqa.errors import PictureTooLarge
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.demuxer import OpenVideo, open_video, read_packets
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.decode.nal_units import decode_packet
from videoqa_worker.frames.decode.skip import NonRefSkipper
from videoqa_worker.frames.sparse_file import SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["DecodedPicture", "Walk"]

_SEEK_ATTEMPTS = 4
"""Seeks to try, each a keyframe earlier: transport streams land late by one or two."""


def _ignore_restart(tick: int) -> None:
    """The default `on_restart`."""


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


class Walk:
    """A walk over the pictures of an open file; a context manager."""

    _source: Iterator[Packet[Stream]]
    """The packets that follow."""
    _pictures: Iterator[DecodedPicture]
    """The pictures that follow."""
    _current: DecodedPicture | None
    _next: DecodedPicture | None

    def __init__(self, file: SparseFile, limits: FrameLimits, budget: DecodeBudget) -> None:
        self._file, self._limits, self._budget = file, limits, budget
        self._stack = ExitStack()
        self._timeline: Timeline | None = None
        self._may_seek = True
        self.times_contradict = False
        """True once the decoder gave a picture after one with a later time: no time can be trusted."""
        self.begins_late = False
        """True if a picture before the first decoded one is lost, so time 0 is not the file's."""
        self.on_restart: Callable[[int], None] = _ignore_restart
        """Called with a tick if no seek leads there, so that all before it is decoded again."""
        self._targets: Sequence[int] = ()
        self._until: int | None = None
        """Decoding may end with the first packet whose dts is after this tick."""
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stack.close()
        # Generators refer to the walk, which refers to them and the video: break the cycle.
        self._pictures, self._source = iter(()), iter(())
        self._current = self._next = None
        self.on_restart = _ignore_restart

    def _open(self) -> None:
        """Opens the video anew, at its first picture."""
        self._stack.close()
        self.video: OpenVideo = self._stack.enter_context(open_video(self._file, self._limits))
        self._skip = NonRefSkipper(self.video, self._targets)
        self._reset(count=0)

    def _reset(self, count: int | None) -> None:
        """Resets the state of decoding; `count` is the next picture's number, if known."""
        self._source = self._read_packets()
        self._pictures = self._decode(self._source)
        self._current = self._next = None
        self._count = count
        self._gop_start: int | None = None
        self._damaged = self._damaged_before = False
        """True if a picture of this GOP (of the GOP before) could not be decoded."""
        self._lost = False
        """True if a picture since the last one could not be decoded."""
        self._last_pts: int | None = None
        self._held_packets = 0
        """Packets sent to the decoder minus pictures received from it."""
        self._has_joined = not self.video.may_begin_anywhere or count is None
        """False while undecodable packets may be leading ones, whose references were never sent."""
        self._drained = False
        """True if the decoder has lost its references and must start at a keyframe."""
        self._skip.forget()

    def read_first(self) -> VideoFrame | None:
        """Returns the video's first picture; None if nothing decodes."""
        decoded = self._peek()
        self.begins_late = decoded is not None and decoded.after_loss
        return decoded.picture if decoded else None

    def lacks_reordering(self) -> bool:
        """Returns True if the first packets' pts may be decoding times."""
        return self._skip.lacks_reordering()

    def use_timeline(self, timeline: Timeline) -> None:
        """Uses the times of this timeline from here on."""
        self._timeline = timeline
        if timeline.stamps is not None:
            self._open()

    def set_targets(self, targets: Sequence[int]) -> None:
        """Sets all ticks that `advance_to` will be called with, ascending."""
        self._targets = self._skip.targets = targets

    def advance_to(self, tick: int) -> DecodedPicture | None:
        """Advances to the last picture with pts <= tick; ticks are targets and do not descend."""
        self._until = tick if self._is_last_before_seek(tick) else None
        self._seek_near(tick)
        while (following := self._peek()) is not None and following.pts <= tick:
            self._current, self._next = following, None
        lost = following.after_loss if following is not None else self._lost
        if self._current is not None and (lost or self._is_outdated(self._current.pts, tick)):
            return replace(self._current, exact=False)
        return self._current or self._next

    def _is_outdated(self, pts: int, tick: int) -> bool:
        """Returns True if a later picture is known that should be on screen at the tick.

        It is known from the packet table, else from the packets read: all up to the tick by now.
        """
        expected = self._timeline.pts_on_screen(tick) if self._timeline else None
        if expected is not None:
            return expected > pts
        return self._skip.is_replaced(pts, tick)

    def _is_last_before_seek(self, tick: int) -> bool:
        """Returns True if the next target is reached by a seek, or there is none."""
        if self._timeline is None or not self._may_seek or self._by_count:
            return False
        later = bisect_right(self._targets, tick)
        if later == len(self._targets):
            return True
        keyframes = self._timeline.keyframes_until(self._targets[later])
        return bool(keyframes) and keyframes[-1] > tick

    def decode_keyframe_at(self, key: int) -> DecodedPicture | None:
        """Decodes the keyframe at about this pts alone; returns None if there is none."""
        here = self._next
        if here is not None and here.pts == key and here.picture.key_frame:
            return here
        if not self._may_seek:
            return None
        landed = self._land_on(key)
        self._drained = True
        if landed is None:
            return None
        alone = (decoded for packet in (landed, None) for decoded in self._decode_packet(packet))
        decoded = next(alone, None)
        return decoded if decoded is not None and decoded.picture.key_frame else None

    def is_at_end(self) -> bool:
        """Returns True if no picture follows the current one."""
        return not self._drained and self._peek() is None

    def _peek(self) -> DecodedPicture | None:
        if self._next is None:
            self._next = next(self._pictures, None)
        return self._next

    # Decoding

    def _read_packets(self) -> Iterator[Packet[Stream]]:
        try:
            for packet in read_packets(self.video.container, self.video.stream):
                self._budget.tick()
                yield packet
        except FFmpegError:
            self._mark_loss()  # an unreadable rest counts as the end of the file

    def _decode(self, source: Iterator[Packet[Stream]]) -> Iterator[DecodedPicture]:
        for n, packet in enumerate(source):
            if n == 0 and self._by_count and not packet.is_keyframe:
                self._mark_loss()  # decoders then repeat the first picture, which shifts all others
            if self._until is not None and packet.dts is not None and packet.dts > self._until:
                self._drained = True
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
            pictures, complete = decode_packet(self.video, packet, is_empty=self._held_packets == 0)
        except FFmpegError as error:
            self._refuse_growth(error)
            self._refuse_shortage(error)
            if packet is None or not self._is_leading(packet):
                self._mark_loss()
            return
        if not complete:
            self._mark_loss()
        self._held_packets += (packet is not None) - len(pictures)
        missing = self._held_packets > self.video.decoder.reorder_depth
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
        stamps = self._timeline.stamps if self._timeline else None
        if stamps is not None and count is not None:
            pts = stamps[count] if count < len(stamps) else None
        if pts is None and self._timeline is None:
            pts = 0  # any time will do to tell whether a first picture exists
        self.times_contradict |= pts is not None and self._goes_back(pts)
        if picture.is_corrupt or pts is None or self._goes_back(pts):
            self._mark_loss()
            return None
        self._last_pts, self._has_joined = pts, True
        trusted = self._timeline is None or self._timeline.trusted
        of_before = self._gop_start is not None and pts < self._gop_start
        damaged = self._damaged_before if of_before else self._damaged
        decoded = DecodedPicture(picture, pts, count, trusted and not damaged, self._lost)
        self._lost = False
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
        self._damaged = self._lost = True
        if not self._by_count:
            self._count = None

    @property
    def _keyframe_slack(self) -> int:
        """Ticks by which the index may miss a keyframe's time, where frame durations vary."""
        return round(3 * self._timeline.step) if self._timeline else 0

    @property
    def _by_count(self) -> bool:
        return self._timeline is not None and self._timeline.stamps is not None

    def _refuse_growth(self, error: FFmpegError) -> None:
        """Raises PictureTooLarge if the error is a picture larger than the limit.

        H.264 keeps the size that it refused, other decoders keep none.
        """
        decoder, limit = self.video.decoder, self._limits.max_pixels
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
        np.empty((self.video.decoder.height, self.video.decoder.width, 3), dtype=np.uint8)

    # Seeking

    def _seek_near(self, tick: int) -> None:
        here = None if self._drained else self._peek()
        if self._timeline is None or not self._may_seek or (here is None and not self._drained):
            return
        keyframes = self._timeline.keyframes_until(tick)
        if here is not None and (not keyframes or keyframes[-1] <= here.pts):
            return
        for key in reversed(keyframes[-_SEEK_ATTEMPTS:]):
            if here is not None and key <= here.pts:
                break
            if self._seek(key, tick):
                return
        # From here on the file is decoded forward from its start, which is slower and always right.
        self._may_seek, self._until = False, None
        self._open()
        self.on_restart(tick)

    def _seek(self, key: int, tick: int) -> bool:
        landed = self._land(key)
        if landed is None or landed.pts is None or landed.pts > tick or not self._is_known(landed):
            return False
        self._pictures = self._decode(chain([landed], self._source))
        while (decoded := self._peek()) is not None and decoded.pts < landed.pts:
            self._next = None
        return decoded is not None and decoded.pts == landed.pts and bool(decoded.picture.key_frame)

    def _land_on(self, key: int) -> Packet[Stream] | None:
        """Seeks to this keyframe, or to an earlier one and reads on; returns its packet."""
        keyframes = self._timeline.keyframes_until(key) if self._timeline else ()
        for earlier in reversed(keyframes[-_SEEK_ATTEMPTS:]):
            landed = self._land(earlier)
            if (
                landed is not None
                and landed.pts is not None
                and landed.pts <= key + self._keyframe_slack
            ):
                onward = chain([landed], (p for p in self._source if p.is_keyframe))
                near = (
                    p for p in onward if p.pts is not None and p.pts >= key - self._keyframe_slack
                )
                found = next(near, None)
                return (
                    found
                    if found is not None and (found.pts or 0) <= key + self._keyframe_slack
                    else None
                )
        return None

    def _land(self, key: int) -> Packet[Stream] | None:
        """Seeks, and returns the packet of the first keyframe from there on."""
        try:
            self.video.container.seek(key, stream=self.video.stream, backward=True)
        except FFmpegError:
            return None
        self.video.decoder.flush_buffers()
        self._reset(count=None)
        return next((p for p in self._source if p.is_keyframe and p.pts is not None), None)

    def _is_known(self, packet: Packet[Stream]) -> bool:
        table = self._timeline.table if self._timeline else None
        return table is None or table.sizes.get(packet.pts or 0) == packet.size
