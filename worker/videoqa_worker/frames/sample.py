"""Frames of a video file, uniform in time: the top of the path.

Knows files and seconds; jobs, URLs and models are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from videoqa.errors import FramesTooLarge, VideoCorrupt, VideoTruncated
from videoqa.job import Sampling, Warn
from videoqa_worker.frames.clip import clip_of
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.limits import DEFAULT_LIMITS, FrameLimits
from videoqa_worker.frames.pixels import to_rgb
from videoqa_worker.frames.sniff import look_at
from videoqa_worker.frames.timeline import Timeline, read_timeline
from videoqa_worker.frames.walk import Shown, Walk
from videoqa_worker.frames.watch import Watch, no_check

__all__ = ["sample_frames"]


def sample_frames(
    path: str | Path,
    sampling: Sampling,
    *,
    start: float | None = None,
    end: float | None = None,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
) -> SampledVideo:
    """The pictures on screen at `sampling.cap` instants of the clip [start, end).

    With a = `start` or 0 and b = `end` or the duration, in seconds from the first picture,
    frame k of n is the last one with pts <= a + k * (b - a) / n. A picture that is on screen
    at several instants comes once. `check` is called at every packet; what it raises passes.

    Raises:
        NotAVideo, NoVideoStream, VideoCorrupt, VideoTruncated, VideoTooLarge,
        ClipOutOfRange, DecodeTimeout.
    """
    watch = Watch(limits, check)
    with Walk(Path(path), limits, watch) as walk:
        first = walk.first()
        if first is None:
            raise VideoCorrupt(f"looks like {look_at(Path(path)).text}, and no picture decodes")
        timeline = read_timeline(walk.video, first.pts, watch)
        walk.follow(timeline)
        step_s = timeline.step * timeline.time_base
        clip = clip_of(max(timeline.duration_s, step_s), start, end, slack_s=step_s)
        _check_memory(first.width * first.height, sampling.cap, limits)
        ticks = [timeline.ticks_at(instant_s) for instant_s in clip.instants_s(sampling.cap)]
        frames = _take(walk, timeline, ticks)
        info = _describe(walk, timeline, frames[0])
    return SampledVideo(frames, info, clip.warnings + _fewer(sampling.cap, len(frames)))


def _take(walk: Walk, timeline: Timeline, ticks: list[int]) -> tuple[Frame, ...]:
    if timeline.truncated:
        _check_reached(timeline, ticks[-1], timeline.last)
    frames: list[Frame] = []
    last_pts: int | None = None
    for tick in ticks:
        shown = walk.at(tick)
        if shown is None:
            raise VideoCorrupt(f"no picture decodes near {timeline.seconds(tick):.2f} s")
        held = False
        if (timeline.truncated or shown.pts < timeline.last) and walk.ended():
            _check_reached(timeline, tick, shown.pts)
            held = tick > shown.pts + timeline.step
        if shown.pts != last_pts:
            frames.append(_frame(shown, timeline, exact=shown.exact and not held))
        last_pts = shown.pts
    return tuple(frames)


def _frame(shown: Shown, timeline: Timeline, *, exact: bool) -> Frame:
    index = shown.count if shown.count is not None else timeline.index_of(shown.pts)
    return Frame(index, timeline.seconds(shown.pts), exact, to_rgb(shown.picture))


def _check_reached(timeline: Timeline, tick: int, last: int) -> None:
    """Never passes the last picture off as a later one."""
    pictures_end = last + round(timeline.step)
    missing_s = (tick - pictures_end) * timeline.time_base
    if missing_s > timeline.tolerance_s:
        usable_s = math.floor(timeline.seconds(pictures_end) * 100) / 100
        raise VideoTruncated(
            f"pictures end at {usable_s:.2f} s of {float(timeline.duration_s):.2f} s; "
            f"set end={usable_s:.2f} to use what is there"
        )


def _check_memory(pixels: int, count: int, limits: FrameLimits) -> None:
    needed_bytes = pixels * 3 * count
    if needed_bytes > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"{count} frames of this size take {needed_bytes / 2**30:.1f} GiB, expected at most "
            f"{limits.max_frames_bytes / 2**30:.1f} GiB; ask for fewer frames"
        )


def _describe(walk: Walk, timeline: Timeline, frame: Frame) -> VideoInfo:
    height, width = frame.pixels.shape[:2]
    rate = None if timeline.even else walk.video.stream.average_rate
    return VideoInfo(
        duration_s=float(timeline.duration_s),
        fps=float(rate or 1 / (timeline.step * timeline.time_base)),
        width=width,
        height=height,
        codec=walk.video.decoder.name,
        format=walk.video.format.split(",")[0],
    )


def _fewer(asked: int, got: int) -> tuple[Warn, ...]:
    if got == asked:
        return ()
    message = f"asked for {asked} frames, the clip has {got}: some instants show the same picture"
    return (Warn(code="fewer_frames", message=message),)
