"""Header of a video: its length, the frames that would be taken, and the bytes to read for them.

Opens the container and reads its index, and decodes nothing. A file without an index gives what
is in its header, or nothing. Knows files and seconds, not URLs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av

from videoqa.contract import Sampling
from videoqa_worker.frames import (
    DecodeBudget,
    OpenVideo,
    Span,
    Spans,
    SparseFile,
    compute_instants,
    open_video,
    plan_spans,
    resolve_clip,
)
from videoqa_worker.settings import FrameLimits

__all__ = ["Header", "read_header"]

MAX_HEADER_BYTES = 8 << 20
"""Limit on header and index together: those of hours of video are a few MB."""


@dataclass(frozen=True)
class Header:
    """The facts about a video that are known before decoding."""

    width: int
    height: int
    seconds: float | None
    """Length of the clip; None: the header does not give it."""
    frames: int | None
    """Frames of all segments together, or of the video."""
    segments: int
    """Number of segments; 1 unless `method` is "segment"."""
    spans: list[Span] | None
    """Byte ranges that a worker would read; None: the whole file."""


def read_header(
    file: SparseFile,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    *,
    whole: bool,
) -> Header:
    """Reads a video's header. `whole`: a worker would fetch the whole file, so the index is not read.

    Raises:
        SamplingError: as in a worker. SourceError: the header cannot be fetched.
    """
    budget = DecodeBudget(limits)
    header_only = _HeaderOnly(file)
    try:
        with open_video(header_only, limits, probe=False) as video:
            seconds = _read_duration(video)
            width, height = video.decoder.width, video.decoder.height
    except _BeyondHeader:
        return Header(0, 0, None, None, 1, None)
    spans: list[Span] | None = None
    if not whole:
        try:
            spans = plan_spans(header_only, sampling, start, end, limits, budget)
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


def _read_duration(video: OpenVideo) -> Fraction | None:
    """Returns the duration in seconds that stream or container declare."""
    stream = video.stream
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return Fraction(video.container.duration, av.time_base) if video.container.duration else None


class _BeyondHeader(Exception):
    """Raised when more than a header would have to be read."""


class _HeaderOnly:
    """A sparse file that raises once more than a header and an index is read."""

    def __init__(self, file: SparseFile) -> None:
        self._file = file
        self._left_bytes = MAX_HEADER_BYTES
        self.size_bytes = file.size_bytes

    def open_file(self) -> int:
        return self._file.open_file()

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
