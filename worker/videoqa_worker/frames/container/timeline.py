"""When the pictures of a video are on screen, and from where decoding may start.

Ticks are integers of the stream's time base; seconds come in only at `seconds` and `ticks_at`.
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
    """All fields in ticks unless named otherwise."""

    time_base: Fraction
    """Seconds a tick."""
    origin: int
    """The first picture's pts."""
    end: int
    """Where the file says that the video ends."""
    last: int
    """The last picture that the file holds; clearly before `end` in a truncated file."""
    truncated: bool
    """The file breaks off: pictures between `last` and `end` are missing."""
    step: Fraction
    """Mean ticks from picture to picture."""
    even: bool
    """All pictures are `step` apart, but for rounding to ticks."""
    keys: Sequence[int] = ()
    """Where seeking may lead, ascending; empty: read from the start."""
    table: PacketTable | None = None
    index: Index | None = None
    """What it was read from, where the container's header told."""
    stamps: Sequence[int] | None = None
    """Instead of the container's pts: the n-th picture out of the decoder is at stamps[n]."""
    trusted: bool = True
    """False: the container's timestamps contradict themselves."""

    @property
    def duration_s(self) -> Fraction:
        return (self.end - self.origin) * self.time_base

    @property
    def tolerance_s(self) -> Fraction:
        """Pictures that end by no more than this too early still count as complete."""
        return max(Fraction(1, 2), 2 * self.step * self.time_base)

    def ticks_at(self, instant_s: Fraction) -> int:
        """The last tick that counts as at or before the instant.

        Containers round timestamps to their tick: at 30 a second Matroska writes 0, 33, 67 ms.
        An instant less than one (fine) tick before a picture belongs to it.
        """
        ticks = instant_s / self.time_base
        rounded = self.time_base <= _FINE_TICK_S
        return self.origin + (math.ceil(ticks) if rounded else math.floor(ticks))

    def seconds(self, pts: int) -> float:
        return float((pts - self.origin) * self.time_base)

    def index_of(self, pts: int) -> int | None:
        """The picture's number, where timestamps alone tell it."""
        if self.table is not None and self.trusted and self.stamps is None:
            first, rank = self.table.rank(self.origin), self.table.rank(pts)
            return None if first is None or rank is None else rank - first
        if self.even:
            return round((pts - self.origin) / self.step)
        return None

    def pts_on_screen(self, tick: int) -> int | None:
        """The pts of the picture at this tick by the packets of the file; None: unknown."""
        times = self.stamps or (self.table.pts if self.table is not None else ())
        if times:
            return times[max(0, bisect_right(times, tick) - 1)]
        return None

    def keyframes_until(self, tick: int) -> Sequence[int]:
        return self.keys[: bisect_right(self.keys, tick)]
