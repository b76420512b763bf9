"""Samples the frames of a long video segment by segment, in one pass over its pictures.

Knows files and seconds. A segment's frames are yielded before the next segment is decoded, so an
hour needs no more memory than the segments that overlap. A caller that resumes where another one
stopped names the first segment.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from videoqa.contract import Sampling, Warn
from videoqa_worker.frames.budget import DecodeBudget, TimedFile, no_check
from videoqa_worker.frames.container.declared_shape import read_declared_shape
from videoqa_worker.frames.container.file_cursor import is_complete
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.decode.animated_picture import open_playable
from videoqa_worker.frames.decode.picture_stream import DecodedPicture
from videoqa_worker.frames.decode.walk import Walk
from videoqa_worker.frames.frame import Frame, SampledVideo
from videoqa_worker.frames.picture.converter import RgbConverter
from videoqa_worker.frames.picture.shape import ShapeRule
from videoqa_worker.frames.sample import (
    check_grown_memory,
    check_memory,
    decode_first_picture,
    decode_on_screen,
    describe_video,
    make_converter,
    make_frame,
    refuse_truncated,
    warn_if_fewer,
)
from videoqa_worker.frames.selection.clip import Clip, resolve_clip
from videoqa_worker.frames.selection.fetch_plan import FetchPlan, read_fetch_plan
from videoqa_worker.frames.selection.instants import SegmentSpan, cut_segments, spread_evenly
from videoqa_worker.frames.selection.targets import Target
from videoqa_worker.frames.shots.finder import find_shots
from videoqa_worker.frames.sparse_file import CompleteFile, SparseFile
from videoqa_worker.frames.still import is_still, read_still
from videoqa_worker.settings import DEFAULT_LIMITS, FrameLimits

__all__ = ["SampledSegment", "sample_segments"]

_PLANNED_FRAMES = 64
"""Number of frames whose bytes are fetched in one round."""


@dataclass(frozen=True, eq=False)
class SampledSegment:
    """The frames of one segment."""

    number: int
    """Number of the segment, from 0."""
    total: int
    start_s: float
    """Seconds from the video's beginning."""
    end_s: float
    video: SampledVideo


def sample_segments(
    file: SparseFile | str | Path,
    sampling: Sampling,
    *,
    start: float | None = None,
    end: float | None = None,
    first: int = 0,
    most_side: int | None = None,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
    on_skipped: Callable[[], None] = no_check,
) -> Iterator[SampledSegment]:
    """Yields the segments of the clip [start, end) that `sampling` defines, ascending in time.

    Arguments:
        first: number of the first segment to yield; the last one, if there are fewer.
        most_side: as for `sample_frames`.
        limits: `decode_timeout_s` holds for each segment, also for those that are decoded through
            on the way to `first`, or again where no seek leads to the next picture.
        on_skipped: called after each segment that is decoded through and not yielded, and each step of the search
            for shots.

    Raises:
        As `sample_frames`; TooManySegments.
    """
    budget = DecodeBudget(limits, check)
    source = TimedFile(CompleteFile(Path(file)) if isinstance(file, str | Path) else file, budget)
    if is_still(source):
        still = read_still(
            source, sampling, start, end, most_side=most_side, limits=limits, check=check
        )
        yield SampledSegment(number=0, total=1, start_s=0.0, end_s=0.0, video=still)
        return
    # Suspected cuts lie all over the file, so it is fetched whole for them.
    may_plan = not is_complete(source) and sampling.segment != "shots"
    plan = read_fetch_plan(source, limits, budget) if may_plan else None
    if plan is None:
        source.ensure([(0, source.size_bytes)])
    with (
        open_playable(source, limits, budget.tick) as playable,
        Walk(playable, limits, budget) as walk,
    ):
        first_picture = decode_first_picture(walk)
        doubtful = walk.lacks_reordering()
        timeline = read_timeline(walk.video, first_picture.picture.pts, budget, doubtful=doubtful)
        walk.use_timeline(timeline)
        clip = _cut_clip(playable, timeline, sampling, start, end, limits, budget, on_skipped)
        shape = ShapeRule(read_declared_shape(walk.video), limits.max_pixels)
        check_memory(first_picture, shape, clip.frames_held, limits)
        converter = make_converter(walk.video, shape, most_side)
        yield from _SegmentSampler(walk, timeline, clip, source, plan, budget, converter).sample(
            first, on_skipped
        )


@dataclass(frozen=True)
class _SegmentedClip:
    """A clip cut into segments."""

    clip: Clip
    segments: tuple[SegmentSpan, ...]
    frames: int
    """Frames per segment."""
    frames_held: int
    """Frames of all segments that overlap, which are in memory at once."""
    warnings: tuple[Warn, ...]


def _cut_clip(
    source: SparseFile,
    timeline: Timeline,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    budget: DecodeBudget,
    on_step: Callable[[], None],
) -> _SegmentedClip:
    """Cuts the clip [start, end) into segments."""
    step_s = timeline.step * timeline.time_base
    clip = resolve_clip(max(timeline.duration_s, step_s), start, end, slack_s=step_s)
    if sampling.segment == "shots":
        shots = find_shots(source, timeline, clip, sampling, limits, budget, on_step)
        warnings = (*clip.warnings, *shots.warnings)
        return _SegmentedClip(clip, shots.segments, sampling.cap, sampling.cap, warnings)
    segments = cut_segments(sampling, clip, most=limits.max_segments)
    at_once = 1
    if len(segments) > 1:
        apart_s = segments[1].start_s - segments[0].start_s
        at_once = math.ceil((segments[0].end_s - segments[0].start_s) / apart_s)
    return _SegmentedClip(clip, segments, sampling.cap, sampling.cap * at_once, clip.warnings)


@dataclass
class _PendingSegment:
    """A segment whose frames are being decoded."""

    segment: SegmentSpan
    frames: list[Frame] = field(default_factory=list)
    asked: int = 0
    last_pts: int | None = None


class _SegmentSampler:
    """Samples the segments of a clip in one walk over the pictures."""

    def __init__(
        self,
        walk: Walk,
        timeline: Timeline,
        clip: _SegmentedClip,
        source: SparseFile,
        plan: FetchPlan | None,
        budget: DecodeBudget,
        converter: RgbConverter,
    ) -> None:
        self._walk, self._timeline, self._clip = walk, timeline, clip
        self._source, self._plan, self._budget = source, plan, budget
        self._converter = converter
        self._latest: Frame | None = None
        self._latest_pts: int | None = None

    def sample(self, first: int, on_skipped: Callable[[], None]) -> Iterator[SampledSegment]:
        """Yields the segments from `first` on."""
        segments = self._clip.segments[min(first, len(self._clip.segments) - 1) :]
        wanted = sorted(
            (self._timeline.ticks_at(at_s), segment.number, at_s)
            for segment in segments
            for at_s in spread_evenly(self._clip.frames, segment.start_s, segment.end_s)
        )
        before = self._find_starts_before(segments[0])
        self._walk.set_targets([*before, *(tick for tick, _, _ in wanted)])
        if self._timeline.truncated:
            refuse_truncated(self._timeline, wanted[-1][0], self._timeline.last)
        if before:
            self._fetch([wanted[0][0]])
        pending = {segment.number: _PendingSegment(segment) for segment in segments}
        self._walk.on_restart = lambda tick: self._skip_through(
            self._find_starts_until(tick, min(pending)), on_skipped
        )
        self._skip_through(before, on_skipped)
        for n, (tick, number, at_s) in enumerate(wanted):
            if n % _PLANNED_FRAMES == 0:
                self._fetch([tick for tick, _, _ in wanted[n : n + _PLANNED_FRAMES]])
            self._add_frame(tick, at_s, pending[number])
            # Segments end in the order in which they begin: the last one is never much shorter.
            if pending[number].asked == self._clip.frames:
                yield self._finish(pending.pop(number))
                self._budget.restart()

    def _find_starts_before(self, first: SegmentSpan) -> list[int]:
        """Returns the starts of earlier segments that are decoded through on the way to this one.

        These lie behind the last keyframe before it. In a file without an index of keyframes they
        begin with the second segment, which may take hours of video.
        """
        begin = self._timeline.ticks_at(first.start_s)
        keyframes = self._timeline.keyframes_until(begin)
        later = self._clip.segments[1 : first.number + 1]
        ticks = [self._timeline.ticks_at(segment.start_s) for segment in later]
        return [tick for tick in ticks if not keyframes or tick > keyframes[-1]]

    def _find_starts_until(self, tick: int, following: int) -> list[int]:
        """Returns the starts before `tick` of all segments up to the following one.

        These are decoded through once more if a seek to `tick` fails.
        """
        later = self._clip.segments[1 : following + 1]
        ticks = [self._timeline.ticks_at(segment.start_s) for segment in later]
        return ticks[: bisect_left(ticks, tick)]

    def _skip_through(self, ticks: list[int], on_skipped: Callable[[], None]) -> None:
        for tick in ticks:
            self._walk.advance_to(tick)
            self._budget.restart()
            on_skipped()

    def _fetch(self, ticks: list[int]) -> None:
        if self._plan is not None:
            self._source.ensure(self._plan.spans([Target(tick) for tick in ticks]))

    def _add_frame(self, tick: int, at_s: Fraction, pending: _PendingSegment) -> None:
        decoded = decode_on_screen(self._walk, self._timeline, tick)
        pending.asked += 1
        if decoded.pts != pending.last_pts:
            pending.frames.append(replace(self._make_frame(decoded, at_s), asked_s=float(at_s)))
            check_grown_memory(pending.frames, self._walk.video.limits)
        elif not decoded.exact:
            pending.frames[-1] = replace(pending.frames[-1], exact=False)
        pending.last_pts = decoded.pts

    def _make_frame(self, decoded: DecodedPicture, at_s: Fraction) -> Frame:
        """Makes a frame; converts a picture that overlapping segments share only once."""
        if self._latest is None or decoded.pts != self._latest_pts:
            self._latest = make_frame(decoded, self._timeline, at_s, self._converter)
            self._latest_pts = decoded.pts
        return replace(self._latest, exact=decoded.exact)

    def _finish(self, done: _PendingSegment) -> SampledSegment:
        doubtful = self._walk.times_contradict or self._walk.begins_late
        frames = tuple(replace(frame, exact=frame.exact and not doubtful) for frame in done.frames)
        is_last = done.segment.number == len(self._clip.segments) - 1
        warnings = (
            (*self._clip.warnings, *self._converter.warnings, *self._walk.video.warnings)
            if is_last
            else ()
        )
        return SampledSegment(
            number=done.segment.number,
            total=len(self._clip.segments),
            start_s=float(done.segment.start_s),
            end_s=float(done.segment.end_s),
            video=SampledVideo(
                frames,
                describe_video(self._walk, self._timeline, frames[0], self._converter),
                warnings + warn_if_fewer(done.asked, len(frames)),
            ),
        )
