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
from videoqa_worker.frames.budget import DecodeBudget, TimedFile, no_check
from videoqa_worker.frames.container.file_cursor import is_complete
from videoqa_worker.frames.container.sniff import identify
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.decode.walk import DecodedPicture, Walk
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.limits import DEFAULT_LIMITS, FrameLimits
from videoqa_worker.frames.pixels import to_rgb
from videoqa_worker.frames.selection.fetch_plan import fetch_for_clip
from videoqa_worker.frames.selection.targets import Selection, Target, select_targets
from videoqa_worker.frames.sparse_file import CompleteFile, SparseFile

__all__ = [
    "check_grown_memory",
    "check_memory",
    "decode_first_picture",
    "decode_on_screen",
    "describe_video",
    "make_frame",
    "refuse_truncated",
    "sample_frames",
    "warn_if_fewer",
]


def sample_frames(
    file: SparseFile | str | Path,
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
    budget = DecodeBudget(limits, check)
    source = TimedFile(CompleteFile(Path(file)) if isinstance(file, str | Path) else file, budget)
    if not is_complete(source):
        fetch_for_clip(source, sampling, start, end, limits, budget)
    with Walk(source, limits, budget) as walk:
        first = decode_first_picture(walk)
        doubtful = walk.lacks_reordering()
        timeline = read_timeline(walk.video, first.pts, budget, doubtful=doubtful)
        walk.use_timeline(timeline)
        selection = select_targets(sampling, timeline, start, end)
        check_memory(first.width * first.height, len(selection.targets), limits)
        frames = _sample_targets(walk, timeline, selection)
        info = describe_video(walk, timeline, frames[0])
    warnings = selection.warnings + _warn_if_no_keyframes(sampling, timeline)
    return SampledVideo(frames, info, warnings + warn_if_fewer(len(selection.targets), len(frames)))


def decode_first_picture(walk: Walk) -> VideoFrame:
    """Raises VideoCorrupt if there is none."""
    first = walk.read_first()
    if first is None:
        file_type = identify(walk.video.file.path)
        raise VideoCorrupt(f"looks like {file_type.text}, and no picture decodes")
    return first


def _sample_targets(walk: Walk, timeline: Timeline, selection: Selection) -> tuple[Frame, ...]:
    targets = selection.targets
    walk.set_targets([target.tick for target in targets])
    if timeline.truncated:
        refuse_truncated(timeline, targets[-1].tick, timeline.last)
    frames: list[Frame] = []
    reformatter = VideoReformatter()
    last_pts: int | None = None
    for target, asked_s in zip(targets, selection.instants_s, strict=True):
        shown = _decode_keyframe(walk, timeline, target) or decode_on_screen(
            walk, timeline, target.tick
        )
        if shown.pts != last_pts:
            frames.append(make_frame(shown, timeline, asked_s, reformatter))
            check_grown_memory(frames, walk.video.limits)
        elif not shown.exact:  # this instant's doubt is the frame's, which stands for both
            frames[-1] = replace(frames[-1], exact=False)
        last_pts = shown.pts
    if walk.times_contradict or walk.begins_late:
        frames = [replace(frame, exact=False) for frame in frames]
    return tuple(frames)


def _decode_keyframe(walk: Walk, timeline: Timeline, target: Target) -> DecodedPicture | None:
    """The keyframe, exact only if it is what is on screen at the instant."""
    shown = walk.keyframe_at(target.key) if target.key is not None else None
    if shown is None:
        return None
    since = target.tick - shown.pts
    decode_on_screen = since == 0 or (timeline.even and 0 < since < timeline.step)
    return replace(shown, exact=shown.exact and decode_on_screen)


def decode_on_screen(walk: Walk, timeline: Timeline, tick: int) -> DecodedPicture:
    shown = walk.picture_at(tick)
    if shown is None:
        raise VideoCorrupt(f"no picture decodes near {timeline.seconds(tick):.2f} s")
    if (timeline.truncated or shown.pts < timeline.last) and walk.is_at_end():
        refuse_truncated(timeline, tick, shown.pts)
        held = tick > shown.pts + timeline.step
        return replace(shown, exact=shown.exact and not held)
    return shown


def make_frame(
    shown: DecodedPicture, timeline: Timeline, asked_s: Fraction, reformatter: VideoReformatter
) -> Frame:
    index = shown.count if shown.count is not None else timeline.index_of(shown.pts)
    pixels = to_rgb(shown.picture, reformatter)
    return Frame(index, timeline.seconds(shown.pts), shown.exact, pixels, float(asked_s))


def refuse_truncated(timeline: Timeline, tick: int, last: int) -> None:
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


def check_grown_memory(frames: Sequence[Frame], limits: FrameLimits) -> None:
    """`check_memory` knows the first picture's size only, and later ones may be larger."""
    if sum(frame.pixels.nbytes for frame in frames) > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"the video's pictures grow, and {len(frames)} frames take more than "
            f"{limits.max_frames_bytes / 2**30:.1f} GiB together; ask for fewer frames"
        )


def describe_video(walk: Walk, timeline: Timeline, frame: Frame) -> VideoInfo:
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


def _warn_if_no_keyframes(sampling: Sampling, timeline: Timeline) -> tuple[Warn, ...]:
    if sampling.method != "keyframe" or timeline.keys:
        return ()
    message = "this kind of file does not tell where keyframes are: exact frames were taken"
    return (Warn(code="no_keyframes", message=message),)


def warn_if_fewer(asked: int, got: int) -> tuple[Warn, ...]:
    if got == asked:
        return ()
    message = f"asked for {asked} frames, the clip has {got}: some instants show the same picture"
    return (Warn(code="fewer_frames", message=message),)
