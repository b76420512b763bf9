"""At which instants of a clip pictures are taken: the formulas of each sampling method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from videoqa.errors import ClipOutOfRange
from videoqa.job import Sampling, Warn
from videoqa_worker.frames.clip import Clip, exactly

__all__ = ["Instants", "instants_of"]


@dataclass(frozen=True)
class Instants:
    """Seconds from the video's beginning, ascending, exact."""

    at_s: tuple[Fraction, ...]
    warnings: tuple[Warn, ...] = ()


def instants_of(sampling: Sampling, clip: Clip, *, slack_s: Fraction) -> Instants:
    """The instants of `Sampling`'s definition (see its docstring) for a clip [a, b).

    `slack_s`: times later than the clip's end by no more than this count as its end.

    Raises:
        ClipOutOfRange: one of `times` lies outside the clip.
    """
    if sampling.times is not None:
        return Instants(tuple(_inside(sampling.times, clip, slack_s)))
    if sampling.fps is not None:
        return _steady(exactly(sampling.fps), sampling.cap, clip)
    return Instants(_uniform(sampling.cap, clip))


def _uniform(count: int, clip: Clip) -> tuple[Fraction, ...]:
    """`a + k * (b - a) / n`: where the Hugging Face guide takes its frames, by time."""
    length_s = clip.end_s - clip.start_s
    return tuple(clip.start_s + k * length_s / count for k in range(count))


def _steady(fps: Fraction, cap: int, clip: Clip) -> Instants:
    """`a + k / fps` before b."""
    count = max(1, math.ceil((clip.end_s - clip.start_s) * fps))
    if count <= cap:
        return Instants(tuple(clip.start_s + k / fps for k in range(count)))
    message = (
        f"{float(fps):g} frames a second would be {count} frames, expected at most {cap}; "
        "that many were spread evenly instead: raise `frames`, or ask for a shorter clip"
    )
    return Instants(_uniform(cap, clip), (Warn(code="frames_capped", message=message),))


def _inside(times: tuple[float, ...], clip: Clip, slack_s: Fraction) -> list[Fraction]:
    exact = sorted({exactly(time) for time in times})
    for time in (exact[0], exact[-1]):
        if not clip.start_s <= time <= clip.end_s + slack_s:
            raise ClipOutOfRange(
                f"got the time {float(time):.3f} s, expected times from "
                f"{float(clip.start_s):.3f} to {float(clip.end_s):.3f} s"
            )
    return exact
