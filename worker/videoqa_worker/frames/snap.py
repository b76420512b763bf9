"""Moves instants to keyframes near them, where the caller asked for that."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from videoqa.job import Sampling
from videoqa_worker.frames.timeline import Timeline

__all__ = ["Target", "snapped"]


@dataclass(frozen=True)
class Target:
    """Ticks of the stream's time base."""

    tick: int
    """The instant asked for."""
    key: int | None = None
    """The keyframe to take instead of the picture on screen then."""


def snapped(ticks: Sequence[int], timeline: Timeline, sampling: Sampling) -> list[Target]:
    """One target a tick; with `method="keyframe"`, the nearest keyframe within the tolerance."""
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
