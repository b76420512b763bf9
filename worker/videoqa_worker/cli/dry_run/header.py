"""A video's header: how long it is, which frames would be taken and which bytes that reads.

Opens the container and reads its index, and decodes nothing. Files without an index tell what
their header says, or nothing. Knows files and seconds, not URLs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av

from videoqa.contract import Sampling
from videoqa_worker.frames import (
    DecodeBudget,
    FrameLimits,
    OpenVideo,
    Span,
    Spans,
    SparseFile,
    compute_instants,
    open_video,
    plan_spans,
    resolve_clip,
)

__all__ = ["Header", "read_header"]

MOST_BYTES = 8 << 20
"""Of a header and an index: hours of video have a few MB of it."""


@dataclass(frozen=True)
class Header:
    """What is known before anything is decoded."""

    width: int
    height: int
    seconds: float | None
    """Of the clip; None: the header does not say."""
    frames: int | None
    """Of all segments, or of the video."""
    segments: int
    """1, but for a video in segments."""
    spans: list[Span] | None
    """That a worker would read; None: all of the file."""


def read_header(
    file: SparseFile,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    *,
    whole: bool,
) -> Header:
    """`whole`: a worker would fetch all of this file, so its index does not matter.

    Raises:
        SamplingError: as a worker would. SourceError: the header cannot be fetched.
    """
    budget = DecodeBudget(limits)
    guarded = _Guarded(file)
    try:
        with open_video(guarded, limits, probe=False) as video:
            seconds = _declared_s(video)
            width, height = video.decoder.width, video.decoder.height
    except _BeyondHeader:
        return Header(0, 0, None, None, 1, None)
    spans: list[Span] | None = None
    if not whole:
        try:
            spans = plan_spans(guarded, sampling, start, end, limits, budget)
        except _BeyondHeader:
            spans = None
    if seconds is None:
        return Header(width, height, None, None, 1, spans)
    clip = resolve_clip(seconds, start, end, slack_s=Fraction(1))
    instants = compute_instants(
        sampling, clip, slack_s=Fraction(1), max_segments=limits.max_segments
    )
    count = len(instants.at_s)
    length_s = float(clip.end_s - clip.start_s)
    segments = count // sampling.cap if sampling.method == "segment" else 1
    return Header(width, height, length_s, count, segments, spans)


def _declared_s(video: OpenVideo) -> Fraction | None:
    stream = video.stream
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return Fraction(video.container.duration, av.time_base) if video.container.duration else None


class _BeyondHeader(Exception):
    """More than a header would have to be read."""


class _Guarded:
    """Media that gives its header and index, and not the rest."""

    def __init__(self, file: SparseFile) -> None:
        self._file = file
        self._left_bytes = MOST_BYTES
        self.path, self.size_bytes = file.path, file.size_bytes

    @property
    def present(self) -> Spans:
        return self._file.present

    def ensure(self, spans: Sequence[Span]) -> None:
        present = self._file.present
        cut = [(max(0, start), min(end, self.size_bytes)) for start, end in spans]
        wanted = sum(b - a for start, end in cut for a, b in present.missing(start, end))
        if wanted > self._left_bytes:
            raise _BeyondHeader
        self._left_bytes -= wanted
        self._file.ensure(spans)
