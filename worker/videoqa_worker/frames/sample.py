"""Frames of a video: the top of the path.

Knows files and seconds; jobs, URLs and models are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from av import VideoFrame
from av.video.reformatter import VideoReformatter

from videoqa.contract import Sampling, Warn
from videoqa.errors import FramesTooLarge, VideoCorrupt, VideoTruncated
from videoqa_worker.frames.budget import Awaited, Watch, no_check
from videoqa_worker.frames.container.file_cursor import is_whole
from videoqa_worker.frames.container.sniff import look_at
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.decode.walk import Shown, Walk
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.pixels import to_rgb
from videoqa_worker.frames.selection.choice import Choice, Target, choose
from videoqa_worker.frames.selection.plan import fetch_planned
from videoqa_worker.frames.sparse_file import LocalMedia, Media
from videoqa_worker.settings import DEFAULT_LIMITS, FrameLimits

__all__ = [
    "check_grown",
    "check_memory",
    "check_reached",
    "describe",
    "fewer",
    "first_picture",
    "frame_of",
    "on_screen",
    "sample_frames",
]


def sample_frames(
    media: Media | str | Path,
    sampling: Sampling,
    *,
    start: float | None = None,
    end: float | None = None,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
) -> SampledVideo:
    """The pictures of the clip [start, end) that `sampling` defines (see its docstring).

    With a = `start` or 0 and b = `end` or the duration, in seconds from the first picture.
    Instants are compared in ticks of the container, rounded up if those are of a millisecond
    or less. A picture that is on screen at several instants comes once. Of media with holes,
    only what is needed is fetched. `check` is called at every packet; what it raises passes.

    Raises:
        NotAVideo, NoVideoStream, VideoCorrupt, VideoTruncated, PictureTooLarge, VideoTooLong,
        TooManyStreams, TooManyPackets, FramesTooLarge, ClipOutOfRange, DecodeTimeout.
        SourceError: media with holes could not be fetched.
    """
    watch = Watch(limits, check)
    source = Awaited(LocalMedia(Path(media)) if isinstance(media, str | Path) else media, watch)
    if not is_whole(source):
        fetch_planned(source, sampling, start, end, limits, watch)
    with Walk(source, limits, watch) as walk:
        first = first_picture(walk)
        doubtful = walk.lacks_reordering()
        timeline = read_timeline(walk.video, first.pts, watch, doubtful=doubtful)
        walk.follow(timeline)
        choice = choose(sampling, timeline, start, end)
        check_memory(first.width * first.height, len(choice.targets), limits)
        frames = _take(walk, timeline, choice)
        info = describe(walk, timeline, frames[0])
    warnings = choice.warnings + _about_keys(sampling, timeline)
    return SampledVideo(frames, info, warnings + fewer(len(choice.targets), len(frames)))


def first_picture(walk: Walk) -> VideoFrame:
    """Raises VideoCorrupt if there is none."""
    first = walk.first()
    if first is None:
        look = look_at(walk.video.media.path)
        raise VideoCorrupt(f"looks like {look.text}, and no picture decodes")
    return first


def _take(walk: Walk, timeline: Timeline, choice: Choice) -> tuple[Frame, ...]:
    targets = choice.targets
    walk.aim([target.tick for target in targets])
    if timeline.truncated:
        check_reached(timeline, targets[-1].tick, timeline.last)
    frames: list[Frame] = []
    reformatter = VideoReformatter()
    last_pts: int | None = None
    for target, asked_s in zip(targets, choice.instants_s, strict=True):
        shown = _keyframe(walk, timeline, target) or on_screen(walk, timeline, target.tick)
        if shown.pts != last_pts:
            frames.append(frame_of(shown, timeline, asked_s, reformatter))
            check_grown(frames, walk.video.limits)
        elif not shown.exact:  # this instant's doubt is the frame's, which stands for both
            frames[-1] = replace(frames[-1], exact=False)
        last_pts = shown.pts
    if walk.contradicted or walk.begins_late:
        frames = [replace(frame, exact=False) for frame in frames]
    return tuple(frames)


def _keyframe(walk: Walk, timeline: Timeline, target: Target) -> Shown | None:
    """The keyframe, exact only if it is what is on screen at the instant."""
    shown = walk.key_at(target.key) if target.key is not None else None
    if shown is None:
        return None
    since = target.tick - shown.pts
    on_screen = since == 0 or (timeline.even and 0 < since < timeline.step)
    return replace(shown, exact=shown.exact and on_screen)


def on_screen(walk: Walk, timeline: Timeline, tick: int) -> Shown:
    shown = walk.at(tick)
    if shown is None:
        raise VideoCorrupt(f"no picture decodes near {timeline.seconds(tick):.2f} s")
    if (timeline.truncated or shown.pts < timeline.last) and walk.ended():
        check_reached(timeline, tick, shown.pts)
        held = tick > shown.pts + timeline.step
        return replace(shown, exact=shown.exact and not held)
    return shown


def frame_of(
    shown: Shown, timeline: Timeline, asked_s: Fraction, reformatter: VideoReformatter
) -> Frame:
    index = shown.count if shown.count is not None else timeline.index_of(shown.pts)
    pixels = to_rgb(shown.picture, reformatter)
    return Frame(index, timeline.seconds(shown.pts), shown.exact, pixels, float(asked_s))


def check_reached(timeline: Timeline, tick: int, last: int) -> None:
    """Never passes the last picture off as a later one."""
    pictures_end = last + round(timeline.step)
    missing_s = (tick - pictures_end) * timeline.time_base
    if missing_s > timeline.tolerance_s:
        usable_s = math.floor(timeline.seconds(pictures_end) * 100) / 100
        raise VideoTruncated(
            f"pictures end at {usable_s:.2f} s of {float(timeline.duration_s):.2f} s; "
            f"set end={usable_s:.2f} to use what is there"
        )


def check_memory(pixels: int, count: int, limits: FrameLimits) -> None:
    needed_bytes = pixels * 3 * count
    if needed_bytes > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"{count} frames of this size take {needed_bytes / 2**30:.1f} GiB, expected at most "
            f"{limits.max_frames_bytes / 2**30:.1f} GiB; ask for fewer frames"
        )


def check_grown(frames: Sequence[Frame], limits: FrameLimits) -> None:
    """`check_memory` knows the first picture's size only, and later ones may be larger."""
    if sum(frame.pixels.nbytes for frame in frames) > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"the video's pictures grow, and {len(frames)} frames take more than "
            f"{limits.max_frames_bytes / 2**30:.1f} GiB together; ask for fewer frames"
        )


def describe(walk: Walk, timeline: Timeline, frame: Frame) -> VideoInfo:
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


def _about_keys(sampling: Sampling, timeline: Timeline) -> tuple[Warn, ...]:
    if sampling.method != "keyframe" or timeline.keys:
        return ()
    message = "this kind of file does not tell where keyframes are: exact frames were taken"
    return (Warn(code="no_keyframes", message=message),)


def fewer(asked: int, got: int) -> tuple[Warn, ...]:
    if got == asked:
        return ()
    message = f"asked for {asked} frames, the clip has {got}: some instants show the same picture"
    return (Warn(code="fewer_frames", message=message),)
