"""At which instants of a clip pictures are taken: the formulas of each sampling method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from videoqa.contract import Sampling, Warn
from videoqa.errors import ClipOutOfRange, TooManySegments
from videoqa_worker.frames.selection.clip import Clip, exactly
from videoqa_worker.settings import DEFAULT_LIMITS

__all__ = ["Instants", "Part", "instants_of", "parts_of", "uniform"]

_LEAST_NEW = Fraction(1, 10)
"""Of `segment_s`: what the last segment brings at least."""


@dataclass(frozen=True)
class Instants:
    """Seconds from the video's beginning, ascending, exact."""

    at_s: tuple[Fraction, ...]
    warnings: tuple[Warn, ...] = ()


@dataclass(frozen=True)
class Part:
    """One segment of a clip: [start_s, end_s)."""

    number: int
    start_s: Fraction
    end_s: Fraction


def instants_of(
    sampling: Sampling,
    clip: Clip,
    *,
    slack_s: Fraction,
    max_segments: int = DEFAULT_LIMITS.max_segments,
) -> Instants:
    """The instants of `Sampling`'s definition (see its docstring) for a clip [a, b).

    `slack_s`: times later than the clip's end by no more than this count as its end.

    Raises:
        ClipOutOfRange: one of `times` lies outside the clip.
        TooManySegments.
    """
    if sampling.times is not None:
        return Instants(tuple(_inside(sampling.times, clip, slack_s)))
    if sampling.fps is not None:
        return _steady(exactly(sampling.fps), sampling.cap, clip)
    if sampling.segment_s is not None:
        parts = parts_of(sampling, clip, most=max_segments)
        every = (uniform(sampling.cap, part.start_s, part.end_s) for part in parts)
        return Instants(tuple(sorted(chain.from_iterable(every))))
    return Instants(uniform(sampling.cap, clip.start_s, clip.end_s))


def parts_of(sampling: Sampling, clip: Clip, *, most: int) -> tuple[Part, ...]:
    """The segments of `Sampling`'s definition.

    Raises:
        TooManySegments: they would be more than `most`.
    """
    length_s = exactly(sampling.segment_s or 0.0)
    overlap_s = exactly(sampling.overlap_s or 0.0)
    apart_s = length_s - overlap_s
    # Segment k brings what lies between a + k * apart + overlap and its end.
    new_s = clip.end_s - clip.start_s - overlap_s - length_s * _LEAST_NEW
    count = max(1, math.floor(new_s / apart_s) + 1)
    if count > most:
        raise TooManySegments(
            f"segments of {float(length_s):g} s that begin every {float(apart_s):g} s would be "
            f"{count}, expected at most {most}; make them longer, or ask for a shorter clip"
        )
    starts = [clip.start_s + k * apart_s for k in range(count)]
    ends = [min(start + length_s, clip.end_s) for start in starts[:-1]] + [clip.end_s]
    return tuple(Part(k, *span) for k, span in enumerate(zip(starts, ends, strict=True)))


def uniform(count: int, start_s: Fraction, end_s: Fraction) -> tuple[Fraction, ...]:
    """`a + k * (b - a) / n`: where the Hugging Face guide takes its frames, by time."""
    return tuple(start_s + k * (end_s - start_s) / count for k in range(count))


def _steady(fps: Fraction, cap: int, clip: Clip) -> Instants:
    """`a + k / fps` before b."""
    count = max(1, math.ceil((clip.end_s - clip.start_s) * fps))
    if count <= cap:
        return Instants(tuple(clip.start_s + k / fps for k in range(count)))
    message = (
        f"{float(fps):g} frames a second would be {count} frames, expected at most {cap}; "
        "that many were spread evenly instead: raise `frames`, or ask for a shorter clip"
    )
    return Instants(
        uniform(cap, clip.start_s, clip.end_s), (Warn(code="frames_capped", message=message),)
    )


def _inside(times: tuple[float, ...], clip: Clip, slack_s: Fraction) -> list[Fraction]:
    exact = sorted({exactly(time) for time in times})
    for time in (exact[0], exact[-1]):
        if not clip.start_s <= time <= clip.end_s + slack_s:
            raise ClipOutOfRange(
                f"got the time {float(time):.3f} s, expected times from "
                f"{float(clip.start_s):.3f} to {float(clip.end_s):.3f} s"
            )
    return exact
