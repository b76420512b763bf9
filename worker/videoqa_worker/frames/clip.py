"""The part of a video that was asked for, and the instants at which pictures are taken."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from videoqa.errors import ClipOutOfRange
from videoqa.job import Warn

__all__ = ["Clip", "clip_of"]


@dataclass(frozen=True)
class Clip:
    """[start_s, end_s) in seconds from the video's beginning, exact."""

    start_s: Fraction
    end_s: Fraction
    warnings: tuple[Warn, ...] = ()

    def instants_s(self, count: int) -> list[Fraction]:
        """`start + k * (end - start) / count`: the guide's instants, by time."""
        length_s = self.end_s - self.start_s
        return [self.start_s + k * length_s / count for k in range(count)]


def clip_of(
    duration_s: Fraction, start: float | None, end: float | None, *, slack_s: Fraction
) -> Clip:
    """`slack_s`: an end that is later than the video by no more than this is no reason to warn.

    Raises:
        ClipOutOfRange: the clip starts after the video's end, or ends before it starts.
    """
    start_s = _exact(start) if start is not None else Fraction(0)
    end_s = _exact(end) if end is not None else duration_s
    if start_s >= duration_s:
        raise ClipOutOfRange(
            f"the clip starts at {float(start_s):.3f} s, the video ends at "
            f"{float(duration_s):.3f} s; choose a start before that"
        )
    if end_s <= start_s:
        raise ClipOutOfRange(
            f"the clip ends at {float(end_s):.3f} s, expected later than its "
            f"start at {float(start_s):.3f} s"
        )
    if end_s <= duration_s:
        return Clip(start_s, end_s)
    message = (
        f"the clip was to end at {float(end_s):.3f} s, the video ends at "
        f"{float(duration_s):.3f} s; frames are taken up to there"
    )
    late = end_s > duration_s + slack_s
    return Clip(
        start_s, duration_s, (Warn(code="clip_shortened", message=message),) if late else ()
    )


def _exact(seconds: float) -> Fraction:
    """2.8 means 14/5, not the nearest binary number: else frame 70 of 25 a second is missed."""
    return Fraction(str(float(seconds)))
