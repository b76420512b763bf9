"""Walks the pictures of a video in presentation order and stops at the one on screen.

Reads forward, and seeks where a keyframe lies between here and the target. A seek proves
itself or is taken back: it must land on a keyframe at or before the target that the
timeline knows, and the decoder must begin with that very picture. Pictures that are shown
before the keyframe are dropped, since after a seek they may lack what they refer to
(open GOPs).

Decodes no more than it must: see `skip`. And where the next target lies behind another
keyframe, decoding ends with the first packet whose decoding time is past the target: all
pictures up to the target have come by then.
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
from videoqa_worker.frames.budget import Watch
from videoqa_worker.frames.container.demuxer import OpenVideo, open_video, packets
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.decode.skip import Skip
from videoqa_worker.frames.decode.units import decode
from videoqa_worker.frames.sparse_file import Media
from videoqa_worker.settings import FrameLimits

__all__ = ["Shown", "Walk"]

_SEEK_ATTEMPTS = 4
"""Each one keyframe earlier. Transport streams land late by one or two."""


def _no_matter(tick: int) -> None:
    """What is read again is on nobody's clock but the caller's."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A decoded picture and its place."""

    picture: VideoFrame
    pts: int
    count: int | None
    """Its number if all pictures before it were decoded too."""
    exact: bool
    after_loss: bool = False
    """Something before it could not be decoded, so the one before stays on screen too long."""


class Walk:
    """Holds the open file; a context manager."""

    _source: Iterator[Packet[Stream]]
    """What the demuxer gives from here on."""
    _pictures: Iterator[Shown]
    """What the decoder makes of it."""
    _current: Shown | None
    _next: Shown | None

    def __init__(self, media: Media, limits: FrameLimits, watch: Watch) -> None:
        self._media, self._limits, self._watch = media, limits, watch
        self._stack = ExitStack()
        self._timeline: Timeline | None = None
        self._may_seek = True
        self.contradicted = False
        """A picture came out of the decoder after one with a later time: no time can be trusted."""
        self.begins_late = False
        """Something before the first picture could not be decoded: time 0 is not the file's."""
        self.started_over: Callable[[int], None] = _no_matter
        """Called on the way to a tick if no seek leads there, so that all before it is read again."""
        self._targets: Sequence[int] = ()
        self._until: int | None = None
        """Decoding may end with the first packet to be decoded after this tick."""
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
        # Generators hold the walk, and it holds them and the open video: no cycle may stay.
        self._pictures, self._source = iter(()), iter(())
        self._current = self._next = None
        self.started_over = _no_matter

    def _open(self) -> None:
        """Starts over from the first picture."""
        self._stack.close()
        self.video: OpenVideo = self._stack.enter_context(open_video(self._media, self._limits))
        self._skip = Skip(self.video, self._targets)
        self._begin(count=0)

    def _begin(self, count: int | None) -> None:
        self._source = self._packets()
        self._pictures = self._decode(self._source)
        self._current = self._next = None
        self._count = count
        self._gop_start: int | None = None
        self._damaged = self._damaged_before = False
        """Something of this GOP, of the one before, could not be decoded."""
        self._lost = False
        """The same, since the last picture."""
        self._last_pts: int | None = None
        self._held = 0
        """Packets given to the decoder less pictures taken from it."""
        self._joined = not self.video.may_begin_anywhere or count is None
        """What came before the first keyframe or picture was not to be had."""
        self._drained = False
        """The decoder has forgotten what pictures refer to: it must start at a keyframe."""
        self._skip.forget()

    def first(self) -> VideoFrame | None:
        """The video's first picture; None if nothing decodes."""
        shown = self._peek()
        self.begins_late = shown is not None and shown.after_loss
        return shown.picture if shown else None

    def lacks_reordering(self) -> bool:
        """Whether the first packets' times may be those of decoding."""
        return self._skip.lacks_reordering()

    def follow(self, timeline: Timeline) -> None:
        """From here on, times are those of the timeline."""
        self._timeline = timeline
        if timeline.stamps is not None:
            self._open()

    def aim(self, targets: Sequence[int]) -> None:
        """All ticks that `at` will be asked for, ascending."""
        self._targets = self._skip.targets = targets

    def at(self, tick: int) -> Shown | None:
        """The last picture with pts <= tick, which is one of the targets; they do not descend."""
        self._until = tick if self._leads_away(tick) else None
        self._seek_near(tick)
        while (following := self._peek()) is not None and following.pts <= tick:
            self._current, self._next = following, None
        lost = following.after_loss if following is not None else self._lost
        if self._current is not None and (lost or self._misses(self._current.pts, tick)):
            return replace(self._current, exact=False)
        return self._current or self._next

    def _misses(self, pts: int, tick: int) -> bool:
        """Whether a later picture is known that should be on screen at the tick.

        By the table of packets, else by the packets read: all up to the tick were read by now.
        """
        expected = self._timeline.on_screen(tick) if self._timeline else None
        if expected is not None:
            return expected > pts
        return self._skip.replaced(pts, tick)

    def _leads_away(self, tick: int) -> bool:
        """Whether the next target is reached by a seek, or there is none."""
        if self._timeline is None or not self._may_seek or self._by_count:
            return False
        later = bisect_right(self._targets, tick)
        if later == len(self._targets):
            return True
        keys = self._timeline.keys_until(self._targets[later])
        return bool(keys) and keys[-1] > tick

    def key_at(self, key: int) -> Shown | None:
        """The keyframe at about this pts, with nothing after it decoded; None if there is none."""
        here = self._next
        if here is not None and here.pts == key and here.picture.key_frame:
            return here
        if not self._may_seek:
            return None
        landed = self._land_on(key)
        self._drained = True
        if landed is None:
            return None
        alone = (shown for packet in (landed, None) for shown in self._placed(packet))
        shown = next(alone, None)
        return shown if shown is not None and shown.picture.key_frame else None

    def ended(self) -> bool:
        """True if no picture follows the current one."""
        return not self._drained and self._peek() is None

    def _peek(self) -> Shown | None:
        if self._next is None:
            self._next = next(self._pictures, None)
        return self._next

    # Decoding

    def _packets(self) -> Iterator[Packet[Stream]]:
        try:
            for packet in packets(self.video.container, self.video.stream):
                self._watch.tick()
                yield packet
        except FFmpegError:
            self._lose()  # an unreadable rest counts as the end of the file

    def _decode(self, source: Iterator[Packet[Stream]]) -> Iterator[Shown]:
        for n, packet in enumerate(source):
            if n == 0 and self._by_count and not packet.is_keyframe:
                self._lose()  # decoders repeat the first picture then, and all others come late
            if self._until is not None and packet.dts is not None and packet.dts > self._until:
                self._drained = True
                break
            if packet.is_keyframe and not self._by_count:
                self._gop_start = packet.pts
                self._damaged_before, self._damaged = self._damaged, False
            yield from self._placed(packet)
        yield from self._placed(None)  # what the decoder still holds back

    def _placed(self, packet: Packet[Stream] | None) -> Iterator[Shown]:
        try:
            if not self._by_count and self._skip.next_is(packet):
                self._count = None
            pictures, complete = decode(self.video, packet, starts=self._held == 0)
        except FFmpegError as error:
            self._refuse_growth(error)
            self._refuse_shortage(error)
            if packet is None or not self._precedes(packet):
                self._lose()
            return
        if not complete:
            self._lose()
        self._held += (packet is not None) - len(pictures)
        missing = self._held > self.video.decoder.reorder_depth
        if self._by_count and (missing or (packet is not None and len(pictures) > 1)):
            self._lose()  # one is missing or too many, without a word: the rest would be misplaced
        for picture in pictures:
            shown = self._place(picture)
            if shown is not None:
                yield shown

    def _place(self, picture: VideoFrame) -> Shown | None:
        """None for a picture that cannot be used: cut off, or without a time."""
        count, pts = self._count, picture.pts
        if self._count is not None:
            self._count += 1
        stamps = self._timeline.stamps if self._timeline else None
        if stamps is not None and count is not None:
            pts = stamps[count] if count < len(stamps) else None
        if pts is None and self._timeline is None:
            pts = 0  # only asked whether a first picture exists
        self.contradicted |= pts is not None and self._goes_back(pts)
        if picture.is_corrupt or pts is None or self._goes_back(pts):
            self._lose()
            return None
        self._last_pts, self._joined = pts, True
        trusted = self._timeline is None or self._timeline.trusted
        of_before = self._gop_start is not None and pts < self._gop_start
        damaged = self._damaged_before if of_before else self._damaged
        shown = Shown(picture, pts, count, trusted and not damaged, self._lost)
        self._lost = False
        return shown

    def _goes_back(self, pts: int) -> bool:
        return self._last_pts is not None and pts <= self._last_pts

    def _precedes(self, packet: Packet[Stream]) -> bool:
        """Whether it may lack what was sent before the file begins: not decodable, and not lost."""
        if self._joined or self._by_count:
            return False
        start = self._gop_start
        return start is None or (packet.pts is not None and packet.pts < start)

    def _lose(self) -> None:
        self._damaged = self._lost = True
        if not self._by_count:
            self._count = None

    @property
    def _near(self) -> int:
        """Where times vary, the index tells those of keyframes to a few pictures only."""
        return round(3 * self._timeline.step) if self._timeline else 0

    @property
    def _by_count(self) -> bool:
        return self._timeline is not None and self._timeline.stamps is not None

    def _refuse_growth(self, error: FFmpegError) -> None:
        """H.264 keeps the size that it refused, other decoders keep none."""
        decoder, limit = self.video.decoder, self._limits.max_pixels
        refused = decoder.width == 0 and error.errno == EINVAL
        if refused or decoder.width * decoder.height > limit:
            raise PictureTooLarge(
                f"a picture of the video has more than {limit} pixels; scale the video down before"
            ) from error

    def _refuse_shortage(self, error: FFmpegError) -> None:
        """Not damage: the same packet decodes where there is more memory.

        H.264 calls it invalid data if it finds none, so look whether a picture would fit.
        """
        if isinstance(error, MemoryError):
            raise error
        np.empty((self.video.decoder.height, self.video.decoder.width, 3), dtype=np.uint8)

    # Seeking

    def _seek_near(self, tick: int) -> None:
        here = None if self._drained else self._peek()
        if self._timeline is None or not self._may_seek or (here is None and not self._drained):
            return
        keys = self._timeline.keys_until(tick)
        if here is not None and (not keys or keys[-1] <= here.pts):
            return
        for key in reversed(keys[-_SEEK_ATTEMPTS:]):
            if here is not None and key <= here.pts:
                break
            if self._seek(key, tick):
                return
        # From here on the file is read forward, from its start: slower, and right.
        self._may_seek, self._until = False, None
        self._open()
        self.started_over(tick)

    def _seek(self, key: int, tick: int) -> bool:
        landed = self._land(key)
        if landed is None or landed.pts is None or landed.pts > tick or not self._knows(landed):
            return False
        self._pictures = self._decode(chain([landed], self._source))
        while (shown := self._peek()) is not None and shown.pts < landed.pts:
            self._next = None
        return shown is not None and shown.pts == landed.pts and bool(shown.picture.key_frame)

    def _land_on(self, key: int) -> Packet[Stream] | None:
        """Seeks to this keyframe, or before it and reads on to it."""
        keys = self._timeline.keys_until(key) if self._timeline else ()
        for earlier in reversed(keys[-_SEEK_ATTEMPTS:]):
            landed = self._land(earlier)
            if landed is not None and landed.pts is not None and landed.pts <= key + self._near:
                onward = chain([landed], (p for p in self._source if p.is_keyframe))
                near = (p for p in onward if p.pts is not None and p.pts >= key - self._near)
                found = next(near, None)
                return found if found is not None and (found.pts or 0) <= key + self._near else None
        return None

    def _land(self, key: int) -> Packet[Stream] | None:
        """Seeks; the first keyframe's packet from there on."""
        try:
            self.video.container.seek(key, stream=self.video.stream, backward=True)
        except FFmpegError:
            return None
        self.video.decoder.flush_buffers()
        self._begin(count=None)
        return next((p for p in self._source if p.is_keyframe and p.pts is not None), None)

    def _knows(self, packet: Packet[Stream]) -> bool:
        table = self._timeline.table if self._timeline else None
        return table is None or table.sizes.get(packet.pts or 0) == packet.size
