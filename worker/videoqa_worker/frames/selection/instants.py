"""The instants of a clip to sample: the formulas of each sampling method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from videoqa.contract import Sampling, Warn
from videoqa.errors import ClipOutOfRange, TooManySegments
from videoqa_worker.frames.selection.clip import Clip, to_fraction
from videoqa_worker.settings import DEFAULT_LIMITS

__all__ = ["Instants", "SegmentSpan", "compute_instants", "cut_segments", "spread_evenly"]

_LEAST_NEW = Fraction(1, 10)
"""Share of `segment_s` that the last segment adds at least."""


@dataclass(frozen=True)
class Instants:
    """The instants to sample, in exact seconds from the video's beginning, ascending."""

    at_s: tuple[Fraction, ...]
    warnings: tuple[Warn, ...] = ()


@dataclass(frozen=True)
class SegmentSpan:
    """A segment [start_s, end_s) of a clip."""

    number: int
    start_s: Fraction
    end_s: Fraction


def compute_instants(
    sampling: Sampling,
    clip: Clip,
    *,
    slack_s: Fraction,
    max_segments: int = DEFAULT_LIMITS.max_segments,
) -> Instants:
    """Computes the instants for a clip [a, b), by the definition in `Sampling`'s docstring.

    Arguments:
        slack_s: times later than the clip's end by no more than this count as its end.

    Raises:
        ClipOutOfRange: one of `times` lies outside the clip.
        TooManySegments.
    """
    if sampling.times is not None:
        return Instants(tuple(_check_inside(sampling.times, clip, slack_s)))
    if sampling.fps is not None:
        return _space_by_rate(to_fraction(sampling.fps), sampling.cap, clip)
    if sampling.segment_s is not None:
        segments = cut_segments(sampling, clip, most=max_segments)
        every = (
            spread_evenly(sampling.cap, segment.start_s, segment.end_s) for segment in segments
        )
        return Instants(tuple(sorted(chain.from_iterable(every))))
    return Instants(spread_evenly(sampling.cap, clip.start_s, clip.end_s))


def cut_segments(sampling: Sampling, clip: Clip, *, most: int) -> tuple[SegmentSpan, ...]:
    """Cuts a clip into segments, by the definition in `Sampling`'s docstring.

    Raises:
        TooManySegments: there would be more than `most`.
    """
    length_s = to_fraction(sampling.segment_s or 0.0)
    overlap_s = to_fraction(sampling.overlap_s or 0.0)
    apart_s = length_s - overlap_s
    # Segment k adds the time between a + k * apart + overlap and its end.
    new_s = clip.end_s - clip.start_s - overlap_s - length_s * _LEAST_NEW
    count = max(1, math.floor(new_s / apart_s) + 1)
    if count > most:
        raise TooManySegments(
            f"segments of {float(length_s):g} s that begin every {float(apart_s):g} s would be "
            f"{count}, expected at most {most}; make them longer, or ask for a shorter clip"
        )
    starts = [clip.start_s + k * apart_s for k in range(count)]
    ends = [min(start + length_s, clip.end_s) for start in starts[:-1]] + [clip.end_s]
    return tuple(SegmentSpan(k, *span) for k, span in enumerate(zip(starts, ends, strict=True)))


def spread_evenly(count: int, start_s: Fraction, end_s: Fraction) -> tuple[Fraction, ...]:
    """Returns the instants `a + k * (b - a) / n`, as the Hugging Face guide samples, by time."""
    return tuple(start_s + k * (end_s - start_s) / count for k in range(count))


def _space_by_rate(fps: Fraction, cap: int, clip: Clip) -> Instants:
    """Returns the instants `a + k / fps` before b; spreads `cap` instants evenly if these are more."""
    count = max(1, math.ceil((clip.end_s - clip.start_s) * fps))
    if count <= cap:
        return Instants(tuple(clip.start_s + k / fps for k in range(count)))
    message = (
        f"{float(fps):g} frames a second would be {count} frames, expected at most {cap}; "
        f"{cap} were spread evenly instead; raise `frames`, or ask for a shorter clip"
    )
    return Instants(
        spread_evenly(cap, clip.start_s, clip.end_s), (Warn(code="frames_capped", message=message),)
    )


def _check_inside(times: tuple[float, ...], clip: Clip, slack_s: Fraction) -> list[Fraction]:
    exact = sorted({to_fraction(time) for time in times})
    for time in (exact[0], exact[-1]):
        if not clip.start_s <= time <= clip.end_s + slack_s:
            raise ClipOutOfRange(
                f"got the time {float(time):.3f} s, expected times from "
                f"{float(clip.start_s):.3f} to {float(clip.end_s):.3f} s; choose times in the clip"
            )
    return exact
