"""Which bytes of a file that lies elsewhere will be read: fetched in one round, in parallel.

A plan is a hint. It is drawn from the container's index before anything is decoded; whatever
it leaves out, the reading that follows brings by itself, so a wrong plan costs requests, never
a wrong picture. Files without an index are fetched whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from videoqa.contract import Sampling
from videoqa.errors import ClipOutOfRange
from videoqa_worker.frames.budget import Watch
from videoqa_worker.frames.container.boxes import bring_index
from videoqa_worker.frames.container.demuxer import open_video
from videoqa_worker.frames.container.file_cursor import is_whole
from videoqa_worker.frames.container.index import Index
from videoqa_worker.frames.container.sniff import look_at
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.selection.choice import Target, choose
from videoqa_worker.frames.sparse_file import Media, Span
from videoqa_worker.settings import FrameLimits

__all__ = ["Plan", "fetch_planned", "planned_spans", "read_plan"]

_GOP_HEAD = Fraction(15, 100)
"""The share of a GOP's bytes that its keyframe takes, at the least."""


def fetch_planned(
    media: Media,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    watch: Watch,
) -> None:
    """Fetches what sampling this clip will read.

    Raises:
        SamplingError: the file cannot be opened. SourceError: it cannot be fetched.
    """
    spans = planned_spans(media, sampling, start, end, limits, watch)
    media.ensure([(0, media.size_bytes)] if spans is None else spans)


def planned_spans(
    media: Media,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    watch: Watch,
) -> list[Span] | None:
    """What sampling this clip will read, by the file's index; None: all of it.

    Raises:
        SamplingError: the file cannot be opened. SourceError: its index cannot be fetched.
    """
    plan = read_plan(media, limits, watch)
    if plan is None:
        return None
    most = limits.max_segments
    try:
        return plan.spans(choose(sampling, plan.timeline, start, end, max_segments=most).targets)
    except ClipOutOfRange:
        return []  # said again, with the true length, by the reading itself


@dataclass(frozen=True)
class Plan:
    """What the container's index tells about bytes."""

    timeline: Timeline
    size_bytes: int
    names_packets: bool
    """It lists every packet, not only keyframes."""
    is_whole: bool
    """Nothing is to be fetched: there was no usable index, and the file was read through."""

    def spans(self, targets: Sequence[Target]) -> list[Span]:
        """What reading these targets takes."""
        index = self.timeline.index
        if index is None or self.is_whole:
            return []
        if self.names_packets:
            spans = [_of_packets(index, self.timeline, target) for target in targets]
        else:
            spans = [_of_clusters(index, self.size_bytes, target.tick) for target in targets]
        return [span for span in spans if span is not None]


def read_plan(media: Media, limits: FrameLimits, watch: Watch) -> Plan | None:
    """By the file's index, which is fetched; None: all of the file is needed.

    Raises:
        SamplingError: the file cannot be opened. SourceError: its index cannot be fetched.
    """
    if not _has_index(media):
        return None
    with open_video(media, limits, probe=False) as video:
        timeline = read_timeline(video, video.stream.start_time or 0, watch)
        return Plan(timeline, media.size_bytes, "mp4" in video.format, is_whole(media))


def _has_index(media: Media) -> bool:
    look = look_at(media.path)
    if "MP4" in look.text:
        return bring_index(media)
    return "Matroska" in look.text


def _of_packets(index: Index, timeline: Timeline, target: Target) -> Span | None:
    """From the keyframe to the packet with which the wanted picture is known to be on screen."""
    keys = np.flatnonzero(index.keys)
    before = len(timeline.keys_until(target.tick if target.key is None else target.key))
    if not before or before > len(keys):
        return None
    first = last = int(keys[before - 1])
    if target.key is None:
        past = int(np.searchsorted(index.times, target.tick, side="right"))
        last = max(first, min(len(index) - 1, past))
    part = slice(first, last + 1)
    return int(index.starts[part].min()), int(index.ends[part].max())


def _of_clusters(cues: Index, size_bytes: int, tick: int) -> Span | None:
    """A share of the GOP's bytes: cues name no packet between keyframes."""
    n = int(np.searchsorted(cues.times, tick, side="right")) - 1
    if n < 0:
        return None
    begin = int(cues.starts[n])
    if n + 1 == len(cues):
        return begin, size_bytes
    share = Fraction(tick - int(cues.times[n]), int(cues.times[n + 1] - cues.times[n]))
    length = int(cues.starts[n + 1]) - begin
    return begin, begin + int(length * min(Fraction(1), share + _GOP_HEAD))
