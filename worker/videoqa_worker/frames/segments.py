"""Frames of a video segment by segment, from one opening and one pass over its pictures.

Knows files and seconds. A segment's frames are handed on before those of the next are decoded,
so an hour needs no more memory than the segments that overlap; and a caller that goes on where
another stopped says with which segment.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from av.video.reformatter import VideoReformatter

from videoqa.contract import Sampling
from videoqa_worker.frames.budget import DecodeBudget, TimedFile, no_check
from videoqa_worker.frames.container.file_cursor import is_complete
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.decode.walk import DecodedPicture, Walk
from videoqa_worker.frames.frame import Frame, SampledVideo
from videoqa_worker.frames.limits import DEFAULT_LIMITS, FrameLimits
from videoqa_worker.frames.sample import (
    check_grown_memory,
    check_memory,
    decode_first_picture,
    decode_on_screen,
    describe_video,
    make_frame,
    refuse_truncated,
    warn_if_fewer,
)
from videoqa_worker.frames.selection.clip import Clip, resolve_clip
from videoqa_worker.frames.selection.fetch_plan import FetchPlan, read_fetch_plan
from videoqa_worker.frames.selection.instants import SegmentSpan, cut_segments, spread_evenly
from videoqa_worker.frames.selection.targets import Target
from videoqa_worker.frames.sparse_file import CompleteFile, SparseFile

__all__ = ["SampledSegment", "sample_segments"]

_PLANNED_FRAMES = 64
"""Of so many, the bytes are fetched in one round."""


@dataclass(frozen=True, eq=False)
class SampledSegment:
    """The frames of one segment."""

    number: int
    """From 0."""
    total: int
    start_s: float
    """From the video's beginning."""
    end_s: float
    video: SampledVideo


def sample_segments(
    file: SparseFile | str | Path,
    sampling: Sampling,
    *,
    start: float | None = None,
    end: float | None = None,
    first: int = 0,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
    on_skipped: Callable[[], None] = no_check,
) -> Iterator[SampledSegment]:
    """The segments of the clip [start, end) that `sampling` defines, in the order of time.

    Arguments:
        first: begins with this one, but never behind the last, so that at least one comes.
        limits: `decode_timeout_s` is for each segment, also for those that decoding has to go
            through on the way to `first`, or again where no seek leads to the next picture.
        passed: called after each of these: no more often than there are segments before.

    Raises:
        As `sample_frames`; TooManySegments.
    """
    budget = DecodeBudget(limits, check)
    source = TimedFile(CompleteFile(Path(file)) if isinstance(file, str | Path) else file, budget)
    plan = None if is_complete(source) else read_fetch_plan(source, limits, budget)
    if plan is None:
        source.ensure([(0, source.size_bytes)])
    with Walk(source, limits, budget) as walk:
        picture = decode_first_picture(walk)
        doubtful = walk.lacks_reordering()
        timeline = read_timeline(walk.video, picture.pts, budget, doubtful=doubtful)
        walk.use_timeline(timeline)
        clip = _SegmentedClip.of(sampling, timeline, start, end, limits)
        check_memory(picture.width * picture.height, clip.frames_held, limits)
        yield from _SegmentSampler(walk, timeline, clip, source, plan, budget).segments(
            first, on_skipped
        )


@dataclass(frozen=True)
class _SegmentedClip:
    """A clip in parts."""

    clip: Clip
    parts: tuple[SegmentSpan, ...]
    frames: int
    """Of each."""
    frames_held: int
    """Of all parts that overlap."""

    @classmethod
    def of(
        cls,
        sampling: Sampling,
        timeline: Timeline,
        start: float | None,
        end: float | None,
        limits: FrameLimits,
    ) -> _SegmentedClip:
        step_s = timeline.step * timeline.time_base
        clip = resolve_clip(max(timeline.duration_s, step_s), start, end, slack_s=step_s)
        parts = cut_segments(sampling, clip, most=limits.max_segments)
        at_once = 1
        if len(parts) > 1:
            apart_s = parts[1].start_s - parts[0].start_s
            at_once = math.ceil((parts[0].end_s - parts[0].start_s) / apart_s)
        return cls(clip, parts, sampling.cap, sampling.cap * at_once)


@dataclass
class _PendingSegment:
    """A part whose frames are being taken."""

    part: SegmentSpan
    frames: list[Frame] = field(default_factory=list)
    asked: int = 0
    last_pts: int | None = None


class _SegmentSampler:
    """One walk over the parts."""

    def __init__(
        self,
        walk: Walk,
        timeline: Timeline,
        clip: _SegmentedClip,
        source: SparseFile,
        plan: FetchPlan | None,
        budget: DecodeBudget,
    ) -> None:
        self._walk, self._timeline, self._clip = walk, timeline, clip
        self._source, self._plan, self._budget = source, plan, budget
        self._reformatter = VideoReformatter()
        self._latest: Frame | None = None
        self._latest_pts: int | None = None

    def segments(self, first: int, on_skipped: Callable[[], None]) -> Iterator[SampledSegment]:
        parts = self._clip.parts[min(first, len(self._clip.parts) - 1) :]
        wanted = sorted(
            (self._timeline.ticks_at(at_s), part.number, at_s)
            for part in parts
            for at_s in spread_evenly(self._clip.frames, part.start_s, part.end_s)
        )
        before = self._find_starts_before(parts[0])
        self._walk.set_targets([*before, *(tick for tick, _, _ in wanted)])
        if self._timeline.truncated:
            refuse_truncated(self._timeline, wanted[-1][0], self._timeline.last)
        if before:
            self._fetch([wanted[0][0]])
        begun = {part.number: _PendingSegment(part) for part in parts}
        self._walk.on_restart = lambda tick: self._skip_through(
            self._find_starts_until(tick, min(begun)), on_skipped
        )
        self._skip_through(before, on_skipped)
        for n, (tick, number, at_s) in enumerate(wanted):
            if n % _PLANNED_FRAMES == 0:
                self._fetch([tick for tick, _, _ in wanted[n : n + _PLANNED_FRAMES]])
            self._take(tick, at_s, begun[number])
            # The parts end in the order in which they begin: the last one is never much shorter.
            if begun[number].asked == self._clip.frames:
                yield self._finish(begun.pop(number))
                self._budget.restart()

    def _find_starts_before(self, first: SegmentSpan) -> list[int]:
        """Where parts begin after earlier ones, from the keyframe before this one up to it; of a file
        without keyframes that can be sought, from the beginning: hours, perhaps."""
        begin = self._timeline.ticks_at(first.start_s)
        keys = self._timeline.keyframes_until(begin)
        later = self._clip.parts[1 : first.number + 1]
        ticks = [self._timeline.ticks_at(part.start_s) for part in later]
        return [tick for tick in ticks if not keys or tick > keys[-1]]

    def _find_starts_until(self, tick: int, following: int) -> list[int]:
        """Where parts begin that a seek would have spared, up to the one that is to come next: behind
        its beginning those that overlap with it begin."""
        later = self._clip.parts[1 : following + 1]
        ticks = [self._timeline.ticks_at(part.start_s) for part in later]
        return ticks[: bisect_left(ticks, tick)]

    def _skip_through(self, ticks: list[int], on_skipped: Callable[[], None]) -> None:
        for tick in ticks:
            self._walk.picture_at(tick)
            self._budget.restart()
            on_skipped()

    def _fetch(self, ticks: list[int]) -> None:
        if self._plan is not None:
            self._source.ensure(self._plan.spans([Target(tick) for tick in ticks]))

    def _take(self, tick: int, at_s: Fraction, into: _PendingSegment) -> None:
        shown = decode_on_screen(self._walk, self._timeline, tick)
        into.asked += 1
        if shown.pts != into.last_pts:
            into.frames.append(replace(self._make_frame(shown, at_s), asked_s=float(at_s)))
            check_grown_memory(into.frames, self._walk.video.limits)
        elif not shown.exact:
            into.frames[-1] = replace(into.frames[-1], exact=False)
        into.last_pts = shown.pts

    def _make_frame(self, shown: DecodedPicture, at_s: Fraction) -> Frame:
        """Segments that overlap may show the same picture; its pixels are made once."""
        if self._latest is None or shown.pts != self._latest_pts:
            self._latest = make_frame(shown, self._timeline, at_s, self._reformatter)
            self._latest_pts = shown.pts
        return replace(self._latest, exact=shown.exact)

    def _finish(self, done: _PendingSegment) -> SampledSegment:
        doubtful = self._walk.times_contradict or self._walk.begins_late
        frames = tuple(replace(frame, exact=frame.exact and not doubtful) for frame in done.frames)
        is_last = done.part.number == len(self._clip.parts) - 1
        warnings = self._clip.clip.warnings if is_last else ()
        return SampledSegment(
            number=done.part.number,
            total=len(self._clip.parts),
            start_s=float(done.part.start_s),
            end_s=float(done.part.end_s),
            video=SampledVideo(
                frames,
                describe_video(self._walk, self._timeline, frames[0]),
                warnings + warn_if_fewer(done.asked, len(frames)),
            ),
        )
