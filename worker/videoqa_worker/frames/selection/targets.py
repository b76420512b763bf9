"""The targets of a walk: a clip's instants in ticks, snapped to keyframes if asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from videoqa.contract import Sampling, Warn
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.selection.clip import resolve_clip
from videoqa_worker.frames.selection.instants import compute_instants
from videoqa_worker.settings import DEFAULT_LIMITS

__all__ = ["Selection", "Target", "select_targets"]


@dataclass(frozen=True)
class Target:
    """A target of the walk, in ticks of the stream's time base."""

    tick: int
    """The instant to sample."""
    keyframe: int | None = None
    """Pts of the keyframe to decode instead of the picture on screen at the instant."""


@dataclass(frozen=True)
class Selection:
    """The targets of a clip, one per instant."""

    instants_s: tuple[Fraction, ...]
    targets: tuple[Target, ...]
    warnings: tuple[Warn, ...]


def select_targets(
    sampling: Sampling,
    timeline: Timeline,
    start: float | None,
    end: float | None,
    *,
    max_segments: int = DEFAULT_LIMITS.max_segments,
) -> Selection:
    """Returns the targets of the clip [start, end), in seconds from the video's beginning.

    Raises:
        ClipOutOfRange: the clip, or one of the times asked for, lies outside the video.
        TooManySegments.
    """
    step_s = timeline.step * timeline.time_base
    clip = resolve_clip(max(timeline.duration_s, step_s), start, end, slack_s=step_s)
    instants = compute_instants(sampling, clip, slack_s=step_s, max_segments=max_segments)
    ticks = [timeline.ticks_at(at_s) for at_s in instants.at_s]
    warnings = clip.warnings + instants.warnings
    return Selection(instants.at_s, tuple(_snap_to_keyframes(ticks, timeline, sampling)), warnings)


def _snap_to_keyframes(
    ticks: Sequence[int], timeline: Timeline, sampling: Sampling
) -> list[Target]:
    """Returns the targets; snaps to the nearest keyframe in tolerance if `method="keyframe"`."""
    if sampling.method != "keyframe":
        return [Target(tick) for tick in ticks]
    tolerance = None
    if sampling.tolerance_s is not None:
        tolerance = sampling.tolerance_s / float(timeline.time_base)
    return [Target(tick, _find_nearest(timeline.keyframes, tick, tolerance)) for tick in ticks]


def _find_nearest(keyframes: Sequence[int], tick: int, tolerance: float | None) -> int | None:
    at = bisect_left(keyframes, tick)
    near = min(keyframes[max(0, at - 1) : at + 1], key=lambda key: abs(key - tick), default=None)
    if near is None or (tolerance is not None and abs(near - tick) > tolerance):
        return None
    return near
