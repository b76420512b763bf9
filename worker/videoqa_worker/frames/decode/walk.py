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

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import Self

from av import Packet
from av.stream import Stream

from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.demuxer import OpenVideo, open_video
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.decode.picture_stream import (
    DecodedPicture,
    Neighbour,
    PictureStream,
)
from videoqa_worker.frames.decode.skip import NonRefSkipper
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES
from videoqa_worker.frames.sparse_file import SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["Walk"]

_SEEK_ATTEMPTS = 4
"""Seeks to try, each a keyframe earlier: transport streams land late by one or two."""


def _ignore_restart(tick: int) -> None:
    """The default `on_restart`."""


class Walk:
    """A walk over the pictures of an open file; a context manager."""

    _stream: PictureStream
    _current: DecodedPicture | None
    _next: DecodedPicture | None

    def __init__(self, file: SparseFile, limits: FrameLimits, budget: DecodeBudget) -> None:
        self._file, self._limits, self._budget = file, limits, budget
        self._stack = ExitStack()
        self._timeline: Timeline | None = None
        self._may_seek = True
        self._contradicted = False
        """The `times_contradict` of the streams that have ended."""
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
        self._current = self._next = None
        self.on_restart = _ignore_restart

    def _open(self) -> None:
        """Opens the video anew, at its first picture."""
        self._stack.close()
        ignore_edits = self._timeline is not None and self._timeline.edits_ignored
        self.video: OpenVideo = self._stack.enter_context(
            open_video(self._file, self._limits, ignore_edits=ignore_edits)
        )
        self._skip = NonRefSkipper(self.video, self._targets)
        self._begin_stream(count=0)
        self._stack.callback(self._end_stream)

    def _begin_stream(self, count: int | None) -> None:
        """Begins at the video's position; `count` is the next picture's number, if known."""
        self._stream = PictureStream(
            self.video, self._skip, self._budget, self._timeline, count=count, until=self._until
        )
        self._current = self._next = None

    def _end_stream(self) -> None:
        self._contradicted |= self._stream.times_contradict
        self._stream.close()

    @property
    def times_contradict(self) -> bool:
        """True once a picture came after one with a later time: no time can be trusted."""
        return self._contradicted or self._stream.times_contradict

    def read_first(self) -> DecodedPicture | None:
        """Returns the video's first picture; None if nothing decodes."""
        decoded = self._peek()
        self.begins_late = decoded is not None and decoded.after_loss
        return decoded

    def lacks_reordering(self) -> bool:
        """Returns True if the first packets' pts may be decoding times."""
        return self._skip.lacks_reordering()

    def use_timeline(self, timeline: Timeline) -> None:
        """Uses the times of this timeline from here on."""
        self._timeline = self._stream.timeline = timeline
        if timeline.stamps is not None:
            self._open()
        elif not timeline.trusted and self._next is not None:
            self._next = replace(self._next, exact=False)

    def set_targets(self, targets: Sequence[int]) -> None:
        """Sets all ticks that `advance_to` will be called with, ascending."""
        self._targets = self._skip.targets = targets

    def advance_to(self, tick: int) -> DecodedPicture | None:
        """Advances to the last picture with pts <= tick; ticks are targets and do not descend."""
        self._until = None
        if self._timeline is not None and self._has_neighbours:
            self._skip.near_ticks = math.ceil(2 * self._timeline.step)
        if self._is_last_before_seek(tick):
            self._until = tick + self._count_ticks_after(tick)
        self._stream.until = self._until
        self._seek_near(tick)
        while (following := self._peek()) is not None and following.pts <= tick:
            self._current, self._next = following, None
        lost = following.after_loss if following is not None else self._stream.lost
        if self._current is not None and (lost or self._is_outdated(self._current.pts, tick)):
            return self._find_neighbour(replace(self._current, exact=False))
        return self._find_neighbour(self._current or self._next)

    @property
    def _has_neighbours(self) -> bool:
        """True for interlaced pictures, unless all are keyframes: that would take up to 1.9 times the time."""
        here, timeline = self._current or self._next, self._timeline
        if timeline is None or here is None or not here.is_woven:
            return False
        keys = timeline.keyframes
        return len(keys) < 2 or keys[-1] - keys[0] > 1.5 * timeline.step * (len(keys) - 1)

    def _count_ticks_after(self, tick: int) -> int:
        """Returns the ticks of one more picture to decode, if a keyframe is on screen that has its neighbour there."""
        if self._timeline is None or not self._has_neighbours:
            return 0
        keyframes = self._timeline.keyframes_until(tick)
        is_on_screen = bool(keyframes) and tick - keyframes[-1] < self._timeline.step
        return math.ceil(self._timeline.step) if is_on_screen else 0

    def _find_neighbour(self, decoded: DecodedPicture | None) -> DecodedPicture | None:
        """Gives an interlaced picture its neighbour, which does not depend on the way to it.

        It is the picture before, and after a keyframe, to which a seek may have led, the picture after.
        """
        if decoded is None or not decoded.is_woven:
            return decoded
        near = decoded.neighbour
        following = self._next
        if decoded.picture.key_frame and following is not None and following.pts > decoded.pts:
            near = Neighbour(following.picture, following.pts)
        if near is None or self._timeline is None or not self._has_neighbours:
            return replace(decoded, neighbour=None)
        is_adjacent = abs(near.pts - decoded.pts) <= 1.5 * self._timeline.step
        return replace(decoded, neighbour=replace(near, is_adjacent=is_adjacent))

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
            return replace(here, neighbour=None)
        if not self._may_seek:
            return None
        landed = self._land_on(key)
        decoded = self._stream.decode_alone(landed) if landed is not None else None
        self._stream.drained = True
        return decoded if decoded is not None and decoded.picture.key_frame else None

    def is_at_end(self) -> bool:
        """Returns True if no picture follows the current one."""
        return not self._stream.drained and self._peek() is None

    def _peek(self) -> DecodedPicture | None:
        if self._next is None:
            self._next = self._stream.decode_next()
        return self._next

    @property
    def _keyframe_slack(self) -> int:
        """Ticks by which the index may miss a keyframe's time, where frame durations vary."""
        return round(3 * self._timeline.step) if self._timeline else 0

    @property
    def _by_count(self) -> bool:
        return self._timeline is not None and self._timeline.stamps is not None

    # Seeking

    def _seek_near(self, tick: int) -> None:
        here = None if self._stream.drained else self._peek()
        if (
            self._timeline is None
            or not self._may_seek
            or (here is None and not self._stream.drained)
        ):
            return
        keyframes = self._timeline.keyframes_until(tick)
        if here is not None and (not keyframes or keyframes[-1] <= here.pts):
            return
        for key in reversed(keyframes[-_SEEK_ATTEMPTS:]):
            if here is not None and key <= here.pts:
                break
            if self._seek(key, tick):
                return
        # The file is now decoded forward from its start, which is slower and always right.
        self._may_seek, self._until = False, None
        self._open()
        self.on_restart(tick)

    def _seek(self, key: int, tick: int) -> bool:
        landed = self._land(key)
        if landed is None or landed.pts is None or landed.pts > tick or not self._is_known(landed):
            return False
        self._stream.begin_with(landed)
        while (decoded := self._peek()) is not None and decoded.pts < landed.pts:
            self._next = None
        return decoded is not None and decoded.pts == landed.pts and bool(decoded.picture.key_frame)

    def _land_on(self, key: int) -> Packet[Stream] | None:
        """Seeks to this keyframe, or to an earlier one and reads on; returns its packet."""
        slack = self._keyframe_slack
        keyframes = self._timeline.keyframes_until(key) if self._timeline else ()
        for earlier in reversed(keyframes[-_SEEK_ATTEMPTS:]):
            landed = self._land(earlier)
            if landed is not None and landed.pts is not None and landed.pts <= key + slack:
                onward = chain([landed], (p for p in self._stream.packets if p.is_keyframe))
                near = (p for p in onward if p.pts is not None and p.pts >= key - slack)
                found = next(near, None)
                return found if found is not None and (found.pts or 0) <= key + slack else None
        return None

    def _land(self, key: int) -> Packet[Stream] | None:
        """Seeks, and returns the packet of the first keyframe from there on."""
        try:
            self.video.container.seek(key, stream=self.video.stream, backward=True)
        except LIBRARY_FAILURES:
            return None
        self.video.decoder.flush_buffers()
        self._end_stream()
        self._begin_stream(count=None)
        return next((p for p in self._stream.packets if p.is_keyframe and p.pts is not None), None)

    def _is_known(self, packet: Packet[Stream]) -> bool:
        table = self._timeline.table if self._timeline else None
        return table is None or table.sizes.get(packet.pts or 0) == packet.size
