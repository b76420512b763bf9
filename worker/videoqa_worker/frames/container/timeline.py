"""The timeline of a video: the times of its pictures, and the keyframes to decode from.

Times are ticks, integers in the stream's time base; `seconds` and `ticks_at` convert them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from videoqa_worker.frames.container.index import Index
from videoqa_worker.frames.container.packets import PacketTable

__all__ = ["Timeline"]

_FINE_TICK_S = Fraction(1, 1000)


@dataclass(frozen=True)
class Timeline:
    """The timeline of a video, in ticks unless a field names another unit."""

    time_base: Fraction
    """Seconds per tick."""
    origin: int
    """Pts of the first picture."""
    end: int
    """End of the video, as the file declares it."""
    last: int
    """Pts of the last picture in the file; clearly before `end` in a truncated file."""
    truncated: bool
    """True if the file breaks off: pictures between `last` and `end` are missing."""
    step: Fraction
    """Mean ticks between pictures."""
    even: bool
    """True if all pictures are `step` apart, but for rounding to ticks."""
    keyframes: Sequence[int] = ()
    """Pts of the keyframes to seek to, ascending; empty if the file must be read from the start."""
    table: PacketTable | None = None
    index: Index | None = None
    """The index that it was read from, where the container's header has one."""
    stamps: Sequence[int] | None = None
    """Times to use instead of the container's pts: picture n of the decoder is at stamps[n]."""
    trusted: bool = True
    """False if the container's timestamps contradict themselves."""
    edits_ignored: bool = False
    """True if the pictures are counted without the edit list of an MP4."""

    @property
    def duration_s(self) -> Fraction:
        return (self.end - self.origin) * self.time_base

    @property
    def tolerance_s(self) -> Fraction:
        """A video whose pictures end earlier by no more than this counts as complete."""
        return max(Fraction(1, 2), 2 * self.step * self.time_base)

    def ticks_at(self, instant_s: Fraction) -> int:
        """Returns the last tick that counts as at or before the instant.

        Containers round timestamps to their tick: at 30 a second Matroska writes 0, 33, 67 ms.
        An instant less than one (fine) tick before a picture belongs to it.
        """
        ticks = instant_s / self.time_base
        rounded = self.time_base <= _FINE_TICK_S
        return self.origin + (math.ceil(ticks) if rounded else math.floor(ticks))

    def seconds(self, pts: int) -> float:
        """Converts a pts to seconds from the first picture."""
        return float((pts - self.origin) * self.time_base)

    def index_of(self, pts: int) -> int | None:
        """Returns the picture's number, where timestamps alone tell it; else None."""
        if self.table is not None and self.trusted and self.stamps is None:
            first, rank = self.table.rank(self.origin), self.table.rank(pts)
            return None if first is None or rank is None else rank - first
        if self.even:
            return round((pts - self.origin) / self.step)
        return None

    def pts_on_screen(self, tick: int) -> int | None:
        """Returns the pts of the picture on screen at this tick; None if no packet table tells it."""
        times = self.stamps or (self.table.pts if self.table is not None else ())
        if times:
            return times[max(0, bisect_right(times, tick) - 1)]
        return None

    def keyframes_until(self, tick: int) -> Sequence[int]:
        """Returns the keyframes at or before this tick."""
        return self.keyframes[: bisect_right(self.keyframes, tick)]
