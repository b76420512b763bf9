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
from videoqa_worker.frames.budget import Awaited, Watch, no_check
from videoqa_worker.frames.container.file_cursor import is_whole
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.decode.walk import Shown, Walk
from videoqa_worker.frames.frame import Frame, SampledVideo
from videoqa_worker.frames.sample import (
    check_grown,
    check_memory,
    check_reached,
    describe,
    fewer,
    first_picture,
    frame_of,
    on_screen,
)
from videoqa_worker.frames.selection.choice import Target
from videoqa_worker.frames.selection.clip import Clip, clip_of
from videoqa_worker.frames.selection.instants import Part, parts_of, uniform
from videoqa_worker.frames.selection.plan import Plan, read_plan
from videoqa_worker.frames.sparse_file import LocalMedia, Media
from videoqa_worker.settings import DEFAULT_LIMITS, FrameLimits

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
    media: Media | str | Path,
    sampling: Sampling,
    *,
    start: float | None = None,
    end: float | None = None,
    first: int = 0,
    limits: FrameLimits = DEFAULT_LIMITS,
    check: Callable[[], None] = no_check,
    passed: Callable[[], None] = no_check,
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
    watch = Watch(limits, check)
    source = Awaited(LocalMedia(Path(media)) if isinstance(media, str | Path) else media, watch)
    plan = None if is_whole(source) else read_plan(source, limits, watch)
    if plan is None:
        source.ensure([(0, source.size_bytes)])
    with Walk(source, limits, watch) as walk:
        picture = first_picture(walk)
        doubtful = walk.lacks_reordering()
        timeline = read_timeline(walk.video, picture.pts, watch, doubtful=doubtful)
        walk.follow(timeline)
        cut = _Cut.of(sampling, timeline, start, end, limits)
        check_memory(picture.width * picture.height, cut.frames_held, limits)
        yield from _Pass(walk, timeline, cut, source, plan, watch).segments(first, passed)


@dataclass(frozen=True)
class _Cut:
    """A clip in parts."""

    clip: Clip
    parts: tuple[Part, ...]
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
    ) -> _Cut:
        step_s = timeline.step * timeline.time_base
        clip = clip_of(max(timeline.duration_s, step_s), start, end, slack_s=step_s)
        parts = parts_of(sampling, clip, most=limits.max_segments)
        at_once = 1
        if len(parts) > 1:
            apart_s = parts[1].start_s - parts[0].start_s
            at_once = math.ceil((parts[0].end_s - parts[0].start_s) / apart_s)
        return cls(clip, parts, sampling.cap, sampling.cap * at_once)


@dataclass
class _Open:
    """A part whose frames are being taken."""

    part: Part
    frames: list[Frame] = field(default_factory=list)
    asked: int = 0
    last_pts: int | None = None


class _Pass:
    """One walk over the parts."""

    def __init__(
        self,
        walk: Walk,
        timeline: Timeline,
        cut: _Cut,
        source: Media,
        plan: Plan | None,
        watch: Watch,
    ) -> None:
        self._walk, self._timeline, self._cut = walk, timeline, cut
        self._source, self._plan, self._watch = source, plan, watch
        self._reformatter = VideoReformatter()
        self._latest: Frame | None = None
        self._latest_pts: int | None = None

    def segments(self, first: int, passed: Callable[[], None]) -> Iterator[SampledSegment]:
        parts = self._cut.parts[min(first, len(self._cut.parts) - 1) :]
        wanted = sorted(
            (self._timeline.ticks_at(at_s), part.number, at_s)
            for part in parts
            for at_s in uniform(self._cut.frames, part.start_s, part.end_s)
        )
        before = self._gone_through(parts[0])
        self._walk.aim([*before, *(tick for tick, _, _ in wanted)])
        if self._timeline.truncated:
            check_reached(self._timeline, wanted[-1][0], self._timeline.last)
        if before:
            self._fetch([wanted[0][0]])
        begun = {part.number: _Open(part) for part in parts}
        self._walk.started_over = lambda tick: self._go_through(
            self._begun_before(tick, min(begun)), passed
        )
        self._go_through(before, passed)
        for n, (tick, number, at_s) in enumerate(wanted):
            if n % _PLANNED_FRAMES == 0:
                self._fetch([tick for tick, _, _ in wanted[n : n + _PLANNED_FRAMES]])
            self._take(tick, at_s, begun[number])
            # The parts end in the order in which they begin: the last one is never much shorter.
            if begun[number].asked == self._cut.frames:
                yield self._ended(begun.pop(number))
                self._watch.restart()

    def _gone_through(self, first: Part) -> list[int]:
        """Where parts begin after earlier ones, from the keyframe before this one up to it; of a file
        without keyframes that can be sought, from the beginning: hours, perhaps."""
        begin = self._timeline.ticks_at(first.start_s)
        keys = self._timeline.keys_until(begin)
        later = self._cut.parts[1 : first.number + 1]
        ticks = [self._timeline.ticks_at(part.start_s) for part in later]
        return [tick for tick in ticks if not keys or tick > keys[-1]]

    def _begun_before(self, tick: int, following: int) -> list[int]:
        """Where parts begin that a seek would have spared, up to the one that is to come next: behind
        its beginning those that overlap with it begin."""
        later = self._cut.parts[1 : following + 1]
        ticks = [self._timeline.ticks_at(part.start_s) for part in later]
        return ticks[: bisect_left(ticks, tick)]

    def _go_through(self, ticks: list[int], passed: Callable[[], None]) -> None:
        for tick in ticks:
            self._walk.at(tick)
            self._watch.restart()
            passed()

    def _fetch(self, ticks: list[int]) -> None:
        if self._plan is not None:
            self._source.ensure(self._plan.spans([Target(tick) for tick in ticks]))

    def _take(self, tick: int, at_s: Fraction, into: _Open) -> None:
        shown = on_screen(self._walk, self._timeline, tick)
        into.asked += 1
        if shown.pts != into.last_pts:
            into.frames.append(replace(self._pixels(shown, at_s), asked_s=float(at_s)))
            check_grown(into.frames, self._walk.video.limits)
        elif not shown.exact:
            into.frames[-1] = replace(into.frames[-1], exact=False)
        into.last_pts = shown.pts

    def _pixels(self, shown: Shown, at_s: Fraction) -> Frame:
        """Segments that overlap may show the same picture; its pixels are made once."""
        if self._latest is None or shown.pts != self._latest_pts:
            self._latest = frame_of(shown, self._timeline, at_s, self._reformatter)
            self._latest_pts = shown.pts
        return replace(self._latest, exact=shown.exact)

    def _ended(self, done: _Open) -> SampledSegment:
        doubtful = self._walk.contradicted or self._walk.begins_late
        frames = tuple(replace(frame, exact=frame.exact and not doubtful) for frame in done.frames)
        is_last = done.part.number == len(self._cut.parts) - 1
        warnings = self._cut.clip.warnings if is_last else ()
        return SampledSegment(
            number=done.part.number,
            total=len(self._cut.parts),
            start_s=float(done.part.start_s),
            end_s=float(done.part.end_s),
            video=SampledVideo(
                frames,
                describe(self._walk, self._timeline, frames[0]),
                warnings + fewer(done.asked, len(frames)),
            ),
        )
