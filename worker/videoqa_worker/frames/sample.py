"""Samples the frames of a video: the entry to this package.

Knows files and seconds, and nothing of jobs, URLs and models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av

from videoqa.contract import Sampling, Warn
from videoqa.errors import FramesTooLarge, VideoCorrupt, VideoTruncated
from videoqa_worker.frames.budget import DecodeBudget, TimedFile, no_check
from videoqa_worker.frames.container.declared_shape import read_declared_shape
from videoqa_worker.frames.container.demuxer import OpenVideo
from videoqa_worker.frames.container.dolby_vision import has_dolby_ipt
from videoqa_worker.frames.container.encryption import refuse_encrypted
from videoqa_worker.frames.container.file_cursor import is_complete
from videoqa_worker.frames.container.sniff import identify
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.decode.animated_picture import MemoryFile, open_playable
from videoqa_worker.frames.decode.picture_stream import DecodedPicture
from videoqa_worker.frames.decode.walk import Walk
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.guide import sample_like_guide
from videoqa_worker.frames.picture.colour.colour_converter import ColourConverter
from videoqa_worker.frames.picture.converter import RgbConverter
from videoqa_worker.frames.picture.shape import ShapeRule
from videoqa_worker.frames.selection.fetch_plan import fetch_for_clip
from videoqa_worker.frames.selection.targets import Selection, Target, select_targets
from videoqa_worker.frames.sparse_file import CompleteFile, SparseFile
from videoqa_worker.frames.still import is_still, read_still
from videoqa_worker.settings import DEFAULT_LIMITS, FrameLimits

__all__ = [
    "check_grown_memory",
    "check_memory",
    "decode_first_picture",
    "decode_on_screen",
    "describe_video",
    "make_converter",
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
    most_side: int | None = None,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
) -> SampledVideo:
    """Returns the frames of the clip [start, end) that `sampling` defines (see its docstring).

    The clip is [a, b) with a = `start` or 0 and b = `end` or the duration, in seconds from the
    first picture. Instants are compared in ticks of the container, rounded up if a tick is a
    millisecond or less. A picture that is on screen at several instants is returned once. Only the
    needed bytes of a sparse file are fetched. `check` is called at every packet; its exceptions
    pass through. Pictures with a side beyond `most_side` are scaled down, for a preview.

    Raises:
        NotAVideo, NoVideoStream, VideoEncrypted, VideoCorrupt, VideoTruncated, PictureTooLarge, VideoTooLong,
        TooManyStreams, TooManyPackets, FramesTooLarge, ClipOutOfRange, DecodeTimeout,
        DecodingFailed; GuideFailed and GuideUnavailable by the method `guide`.
        SourceError: a sparse file could not be fetched.
    """
    budget = DecodeBudget(limits, check)
    source = TimedFile(CompleteFile(Path(file)) if isinstance(file, str | Path) else file, budget)
    if is_still(source):
        return read_still(
            source, sampling, start, end, most_side=most_side, limits=limits, check=check
        )
    if sampling.method == "guide":
        return sample_like_guide(
            source, sampling, most_side=most_side, limits=limits, budget=budget
        )
    if not is_complete(source):
        fetch_for_clip(source, sampling, start, end, limits, budget)
    with (
        open_playable(source, limits, budget.tick) as playable,
        Walk(playable, limits, budget) as walk,
    ):
        first = decode_first_picture(walk)
        doubtful = walk.lacks_reordering()
        timeline = read_timeline(walk.video, first.picture.pts, budget, doubtful=doubtful)
        walk.use_timeline(timeline)
        selection = select_targets(sampling, timeline, start, end)
        shape = ShapeRule(read_declared_shape(walk.video), limits.max_pixels)
        check_memory(first, shape, len(selection.targets), limits)
        converter = make_converter(walk.video, shape, most_side)
        frames = _sample_targets(walk, timeline, selection, converter)
        info = describe_video(walk, timeline, frames[0], converter)
    warnings = (
        *selection.warnings,
        *_warn_if_no_keyframes(sampling, timeline),
        *warn_if_fewer(len(selection.targets), len(frames)),
        *converter.warnings,
        *walk.video.warnings,
    )
    return SampledVideo(frames, info, warnings)


def decode_first_picture(walk: Walk) -> DecodedPicture:
    """Returns the first picture.

    Raises:
        VideoEncrypted. VideoCorrupt: there is none.
    """
    refuse_encrypted(walk.video.file, walk.video.stream.id)
    first = walk.read_first()
    if first is None:
        file_type = identify(walk.video.file)
        raise VideoCorrupt(f"got {file_type.text} of which no picture decodes; upload it again")
    return first


def _sample_targets(
    walk: Walk, timeline: Timeline, selection: Selection, converter: RgbConverter
) -> tuple[Frame, ...]:
    targets = selection.targets
    walk.set_targets([target.tick for target in targets])
    if timeline.truncated:
        refuse_truncated(timeline, targets[-1].tick, timeline.last)
    frames: list[Frame] = []
    last_pts: int | None = None
    for target, asked_s in zip(targets, selection.instants_s, strict=True):
        decoded = _decode_keyframe(walk, timeline, target) or decode_on_screen(
            walk, timeline, target.tick
        )
        if decoded.pts != last_pts:
            frames.append(make_frame(decoded, timeline, asked_s, converter))
            check_grown_memory(frames, walk.video.limits)
        elif (
            not decoded.exact
        ):  # one frame stands for both instants, so it is as doubtful as either
            frames[-1] = replace(frames[-1], exact=False)
        last_pts = decoded.pts
    if walk.times_contradict or walk.begins_late:
        frames = [replace(frame, exact=False) for frame in frames]
    return tuple(frames)


def _decode_keyframe(walk: Walk, timeline: Timeline, target: Target) -> DecodedPicture | None:
    """Decodes the target's keyframe; exact only if it is on screen at the instant."""
    decoded = walk.decode_keyframe_at(target.keyframe) if target.keyframe is not None else None
    if decoded is None:
        return None
    since = target.tick - decoded.pts
    is_on_screen = since == 0 or (timeline.even and 0 < since < timeline.step)
    return replace(decoded, exact=decoded.exact and is_on_screen)


def decode_on_screen(walk: Walk, timeline: Timeline, tick: int) -> DecodedPicture:
    """Decodes the picture that is on screen at this tick.

    Raises:
        VideoCorrupt: no picture decodes. VideoTruncated: the file ends long before the tick.
    """
    decoded = walk.advance_to(tick)
    if decoded is None:
        raise VideoCorrupt(
            f"no picture decodes near {timeline.seconds(tick):.2f} s; upload the video again, "
            "or ask for another clip"
        )
    if (timeline.truncated or decoded.pts < timeline.last) and walk.is_at_end():
        refuse_truncated(timeline, tick, decoded.pts)
        held = tick > decoded.pts + timeline.step
        return replace(decoded, exact=decoded.exact and not held)
    return decoded


def make_frame(
    decoded: DecodedPicture, timeline: Timeline, asked_s: Fraction, converter: RgbConverter
) -> Frame:
    """Converts a decoded picture to a frame."""
    index = decoded.count if decoded.count is not None else timeline.index_of(decoded.pts)
    near = decoded.neighbour
    picture = converter.deinterlace(
        decoded.picture,
        near.picture if near else None,
        is_adjacent=near is not None and near.is_adjacent,
    )
    pixels = converter.convert(picture, decoded.pixel_aspect, decoded.alpha)
    if decoded.alpha_lost:
        converter.note_lost_alpha()
    return Frame(index, timeline.seconds(decoded.pts), decoded.exact, pixels, float(asked_s))


def refuse_truncated(timeline: Timeline, tick: int, last: int) -> None:
    """Raises VideoTruncated if the target lies clearly behind the last picture."""
    pictures_end = last + round(timeline.step)
    missing_s = (tick - pictures_end) * timeline.time_base
    if missing_s > timeline.tolerance_s:
        usable_s = math.floor(timeline.seconds(pictures_end) * 100) / 100
        raise VideoTruncated(
            f"pictures end at {usable_s:.2f} s of {float(timeline.duration_s):.2f} s; "
            f"set end={usable_s:.2f} to use what is there"
        )


def check_memory(first: DecodedPicture, shape: ShapeRule, count: int, limits: FrameLimits) -> None:
    """Raises FramesTooLarge if so many frames of the first picture's size exceed the limit."""
    picture = first.picture
    width, height = shape.find_size(picture.width, picture.height, first.pixel_aspect)
    needed_bytes = width * height * 3 * count
    if needed_bytes > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"{count} frames of this size take {needed_bytes / 2**30:.1f} GiB, expected at most "
            f"{limits.max_frames_bytes / 2**30:.1f} GiB; ask for fewer frames"
        )


def check_grown_memory(frames: Sequence[Frame], limits: FrameLimits) -> None:
    """Raises FramesTooLarge if the frames exceed the limit, since later pictures may be larger."""
    if sum(frame.pixels.nbytes for frame in frames) > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"the video's pictures grow: {len(frames)} frames take more than the allowed "
            f"{limits.max_frames_bytes / 2**30:.1f} GiB; ask for fewer frames"
        )


def make_converter(video: OpenVideo, shape: ShapeRule, most_side: int | None) -> RgbConverter:
    """Makes the converter for the pictures of a video."""
    colours = ColourConverter(
        video.declared_colours, video.limits.hdr, is_dolby_ipt=has_dolby_ipt(video)
    )
    order = int(video.decoder.field_order)
    return RgbConverter(shape, colours, most_side, codec=video.decoder.name, field_order=order)


def describe_video(
    walk: Walk, timeline: Timeline, frame: Frame, converter: RgbConverter
) -> VideoInfo:
    """Returns the video's properties, with the size of this frame."""
    height, width = frame.pixels.shape[:2]
    rate = None if timeline.even else walk.video.stream.average_rate
    file = walk.video.file
    animation = file.format_name if isinstance(file, MemoryFile) else None
    return VideoInfo(
        duration_s=float(timeline.duration_s),
        fps=float(rate or 1 / (timeline.step * timeline.time_base)),
        width=width,
        height=height,
        codec=animation or walk.video.decoder.name,
        format=animation or walk.video.format.split(",")[0],
        dynamic_range=converter.colours.dynamic_range,
        tone_mapped=converter.colours.tone_mapped,
        start_offset_s=_find_start_offset(walk.video, timeline),
    )


def _find_start_offset(video: OpenVideo, timeline: Timeline) -> float:
    """Returns the time of the first picture on a player's clock, which begins with the file's first stream."""
    # Times that were counted are on no clock, but those of the stream are.
    first = timeline.origin if timeline.stamps is None else video.stream.start_time
    if video.container.start_time is None or first is None:
        return 0.0
    begin_s = Fraction(video.container.start_time, av.time_base)
    offset_s = round(float(first * timeline.time_base - begin_s), 6)
    return offset_s if 0 < offset_s <= video.limits.max_duration_s else 0.0


def _warn_if_no_keyframes(sampling: Sampling, timeline: Timeline) -> tuple[Warn, ...]:
    if sampling.method != "keyframe" or timeline.keyframes:
        return ()
    message = "this file format does not list its keyframes; exact frames were sampled instead"
    return (Warn(code="no_keyframes", message=message),)


def warn_if_fewer(asked: int, got: int) -> tuple[Warn, ...]:
    """Returns a warning if fewer frames came than instants were asked for."""
    if got == asked:
        return ()
    message = f"asked for {asked} frames, the clip has {got}: some instants show the same picture"
    return (Warn(code="fewer_frames", message=message),)
