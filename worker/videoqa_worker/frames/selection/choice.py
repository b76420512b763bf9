"""What to look for in a video: its instants in ticks, moved to keyframes where asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from videoqa.contract import Sampling, Warn
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.selection.clip import clip_of
from videoqa_worker.frames.selection.instants import instants_of
from videoqa_worker.settings import DEFAULT_LIMITS

__all__ = ["Choice", "Target", "choose"]


@dataclass(frozen=True)
class Target:
    """Ticks of the stream's time base."""

    tick: int
    """The instant asked for."""
    key: int | None = None
    """The keyframe to take instead of the picture on screen then."""


@dataclass(frozen=True)
class Choice:
    """One target an instant."""

    instants_s: tuple[Fraction, ...]
    targets: tuple[Target, ...]
    warnings: tuple[Warn, ...]


def choose(
    sampling: Sampling,
    timeline: Timeline,
    start: float | None,
    end: float | None,
    *,
    max_segments: int = DEFAULT_LIMITS.max_segments,
) -> Choice:
    """The targets of the clip [start, end), in seconds from the video's beginning.

    Raises:
        ClipOutOfRange: the clip, or one of the times asked for, lies outside the video.
        TooManySegments.
    """
    step_s = timeline.step * timeline.time_base
    clip = clip_of(max(timeline.duration_s, step_s), start, end, slack_s=step_s)
    instants = instants_of(sampling, clip, slack_s=step_s, max_segments=max_segments)
    ticks = [timeline.ticks_at(at_s) for at_s in instants.at_s]
    warnings = clip.warnings + instants.warnings
    return Choice(instants.at_s, tuple(_snapped(ticks, timeline, sampling)), warnings)


def _snapped(ticks: Sequence[int], timeline: Timeline, sampling: Sampling) -> list[Target]:
    """With `method="keyframe"`, the nearest keyframe within the tolerance."""
    if sampling.method != "keyframe":
        return [Target(tick) for tick in ticks]
    tolerance = None
    if sampling.tolerance_s is not None:
        tolerance = sampling.tolerance_s / float(timeline.time_base)
    return [Target(tick, _nearest(timeline.keys, tick, tolerance)) for tick in ticks]


def _nearest(keys: Sequence[int], tick: int, tolerance: float | None) -> int | None:
    at = bisect_left(keys, tick)
    near = min(keys[max(0, at - 1) : at + 1], key=lambda key: abs(key - tick), default=None)
    if near is None or (tolerance is not None and abs(near - tick) > tolerance):
        return None
    return near
