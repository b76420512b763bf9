"""Plans the bytes of a remote file to fetch, in one round of parallel requests.

A plan is a hint. It is made from the container's index before anything is decoded. Bytes that it
misses are fetched when they are read, so a wrong plan costs requests, and never yields a wrong
picture. Files without an index are fetched completely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from videoqa.contract import Sampling
from videoqa.errors import ClipOutOfRange
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.boxes import fetch_index
from videoqa_worker.frames.container.demuxer import open_video
from videoqa_worker.frames.container.file_cursor import is_complete
from videoqa_worker.frames.container.index import Index
from videoqa_worker.frames.container.sniff import MATROSKA, MP4, identify
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.container.timing import read_timeline
from videoqa_worker.frames.selection.targets import Target, select_targets
from videoqa_worker.frames.sparse_file import Span, SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["FetchPlan", "fetch_for_clip", "plan_spans", "read_fetch_plan"]

_GOP_HEAD = Fraction(15, 100)
"""Minimum share of a GOP's bytes that its keyframe takes."""


def fetch_for_clip(
    file: SparseFile,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    budget: DecodeBudget,
) -> None:
    """Fetches the bytes that sampling this clip will read.

    Raises:
        SamplingError: the file cannot be opened. SourceError: it cannot be fetched.
    """
    spans = plan_spans(file, sampling, start, end, limits, budget)
    file.ensure([(0, file.size_bytes)] if spans is None else spans)


def plan_spans(
    file: SparseFile,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    budget: DecodeBudget,
) -> list[Span] | None:
    """Returns the spans that sampling this clip will read, by the file's index; None: all.

    Raises:
        SamplingError: the file cannot be opened. SourceError: its index cannot be fetched.
    """
    plan = None if sampling.method == "guide" else read_fetch_plan(file, limits, budget)
    if plan is None:
        return None
    most = limits.max_segments
    try:
        return plan.spans(
            select_targets(sampling, plan.timeline, start, end, max_segments=most).targets
        )
    except ClipOutOfRange:
        return []  # sampling raises it again, with the exact duration


@dataclass(frozen=True)
class FetchPlan:
    """A container's index, and whether it lists packets or only keyframes."""

    timeline: Timeline
    size_bytes: int
    lists_packets: bool
    """True if the index lists every packet, False if only keyframes."""
    is_complete: bool
    """True if the file is complete already, since it was scanned for want of a usable index."""

    def spans(self, targets: Sequence[Target]) -> list[Span]:
        """Returns the spans that decoding these targets reads."""
        index = self.timeline.index
        if index is None or self.is_complete:
            return []
        if self.lists_packets:
            spans = [_span_packets(index, self.timeline, target) for target in targets]
        else:
            spans = [_span_clusters(index, self.size_bytes, target.tick) for target in targets]
        return [span for span in spans if span is not None]


def read_fetch_plan(
    file: SparseFile, limits: FrameLimits, budget: DecodeBudget
) -> FetchPlan | None:
    """Fetches the file's index and returns a plan by it; None: all of the file is needed.

    Raises:
        SamplingError: the file cannot be opened. SourceError: its index cannot be fetched.
    """
    if not _fetch_index(file):
        return None
    with open_video(file, limits, probe=False) as video:
        timeline = read_timeline(video, video.stream.start_time or 0, budget)
        return FetchPlan(timeline, file.size_bytes, "mp4" in video.format, is_complete(file))


def _fetch_index(file: SparseFile) -> bool:
    file_type = identify(file)
    if file_type == MP4:
        return fetch_index(file)
    return file_type == MATROSKA


def _span_packets(index: Index, timeline: Timeline, target: Target) -> Span | None:
    """Returns the span from the keyframe to the packet that follows the target."""
    keyframes = np.flatnonzero(index.keyframes)
    before = len(
        timeline.keyframes_until(target.tick if target.keyframe is None else target.keyframe)
    )
    if not before or before > len(keyframes):
        return None
    first = last = int(keyframes[before - 1])
    if target.keyframe is None:
        past = int(np.searchsorted(index.times, target.tick, side="right"))
        last = max(first, min(len(index) - 1, past))
    part = slice(first, last + 1)
    return int(index.starts[part].min()), int(index.ends[part].max())


def _span_clusters(cues: Index, size_bytes: int, tick: int) -> Span | None:
    """Returns a share of the GOP's bytes, since cues list no packets between keyframes."""
    n = int(np.searchsorted(cues.times, tick, side="right")) - 1
    if n < 0:
        return None
    begin = int(cues.starts[n])
    if n + 1 == len(cues):
        return begin, size_bytes
    share = Fraction(tick - int(cues.times[n]), int(cues.times[n + 1] - cues.times[n]))
    length = int(cues.starts[n + 1]) - begin
    return begin, begin + int(length * min(Fraction(1), share + _GOP_HEAD))
