"""The clip: the part of a video that a job asks about."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from videoqa.contract import Warn
from videoqa.errors import ClipOutOfRange

__all__ = ["Clip", "resolve_clip", "to_fraction"]


@dataclass(frozen=True)
class Clip:
    """A clip [start_s, end_s), in exact seconds from the video's beginning."""

    start_s: Fraction
    end_s: Fraction
    warnings: tuple[Warn, ...] = ()


def resolve_clip(
    duration_s: Fraction, start: float | None, end: float | None, *, slack_s: Fraction
) -> Clip:
    """Returns the clip [start, end), cut at the video's end.

    Arguments:
        slack_s: an end that is later than the video by no more than this causes no warning.

    Raises:
        ClipOutOfRange: the clip starts after the video's end, or ends before it starts.
    """
    start_s = to_fraction(start) if start is not None else Fraction(0)
    end_s = to_fraction(end) if end is not None else duration_s
    if start_s >= duration_s:
        raise ClipOutOfRange(
            f"the clip starts at {float(start_s):.3f} s, the video ends at "
            f"{float(duration_s):.3f} s; choose a start before that"
        )
    if end_s <= start_s:
        raise ClipOutOfRange(
            f"the clip ends at {float(end_s):.3f} s, expected later than its "
            f"start at {float(start_s):.3f} s; choose a later end"
        )
    if end_s <= duration_s:
        return Clip(start_s, end_s)
    message = (
        f"the clip was asked to end at {float(end_s):.3f} s, the video ends at "
        f"{float(duration_s):.3f} s; frames are sampled up to there"
    )
    late = end_s > duration_s + slack_s
    return Clip(
        start_s, duration_s, (Warn(code="clip_shortened", message=message),) if late else ()
    )


def to_fraction(seconds: float) -> Fraction:
    """Converts 2.8 to 14/5, not to the nearest binary number, which misses frame 70 at 25 fps."""
    return Fraction(str(float(seconds)))
