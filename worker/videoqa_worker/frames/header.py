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
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.declared_shape import read_declared_shape
from videoqa_worker.frames.container.demuxer import OpenVideo, open_video
from videoqa_worker.frames.container.encryption import refuse_encrypted
from videoqa_worker.frames.decode.animated_picture import is_read_by_pillow
from videoqa_worker.frames.picture.shape import ShapeRule
from videoqa_worker.frames.selection.clip import resolve_clip
from videoqa_worker.frames.selection.fetch_plan import plan_spans
from videoqa_worker.frames.selection.instants import compute_instants
from videoqa_worker.frames.sparse_file import Span, Spans, SparseFile
from videoqa_worker.frames.still import is_still
from videoqa_worker.settings import FrameLimits

__all__ = ["VideoHeader", "read_header"]

MAX_HEADER_BYTES = 8 << 20
"""Limit on header and index together: those of hours of video are a few MB."""


@dataclass(frozen=True)
class VideoHeader:
    """The facts about a video that are known before decoding."""

    width: int
    height: int
    seconds: float | None
    """Length of the clip; None: the header does not give it."""
    frames: int | None
    """Frames of all segments together, or of the video."""
    segments: int
    """Number of segments; 1 unless `method` is "segment", and for shots, which a header does not tell."""
    spans: list[Span] | None
    """Byte ranges that a worker would read; None: the whole file."""
    is_image: bool = False
    """True for a still picture, whose size is not in this header."""


def read_header(
    file: SparseFile,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    limits: FrameLimits,
    *,
    whole: bool,
) -> VideoHeader:
    """Reads a video's header. `whole`: a worker would fetch the whole file, so the index is not read.

    Raises:
        SamplingError: as in a worker. SourceError: the header cannot be fetched.
    """
    budget = DecodeBudget(limits)
    header_only = _HeaderOnly(file)
    try:
        if is_still(header_only):
            return VideoHeader(0, 0, 0.0, 1, 1, None, is_image=True)
        if is_read_by_pillow(header_only):
            raise _BeyondHeader  # its length is the sum of its pictures'
        with open_video(header_only, limits, probe=False) as video:
            refuse_encrypted(video.file, video.stream.id)
            seconds = _read_duration(video)
            width, height = _read_shown_size(video)
    except _BeyondHeader:
        return VideoHeader(0, 0, None, None, 1, None)
    spans: list[Span] | None = None
    in_shots = sampling.segment == "shots"
    if not whole and not in_shots:
        try:
            spans = plan_spans(header_only, sampling, start, end, limits, budget)
        except _BeyondHeader:
            spans = None
    if seconds is None:
        return VideoHeader(width, height, None, None, 1, spans)
    clip = resolve_clip(seconds, start, end, slack_s=Fraction(1))
    if in_shots:  # only a search through the packets tells how many there are
        return VideoHeader(width, height, float(clip.end_s - clip.start_s), None, 1, spans)
    instants = compute_instants(
        sampling, clip, slack_s=Fraction(1), max_segments=limits.max_segments
    )
    count = len(instants.at_s)
    length_s = float(clip.end_s - clip.start_s)
    segments = count // sampling.cap if sampling.method == "segment" else 1
    return VideoHeader(width, height, length_s, count, segments, spans)


def _read_shown_size(video: OpenVideo) -> tuple[int, int]:
    """Returns width and height as shown; of the stored pictures where only these themselves tell their shape."""
    declared = read_declared_shape(video)
    rule = ShapeRule(declared, video.limits.max_pixels)
    width, height = video.decoder.width, video.decoder.height
    if not (width and height):
        return 0, 0
    width, height = rule.find_size(width, height, video.pixel_aspect)
    return (height, width) if declared.is_turned else (width, height)


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
