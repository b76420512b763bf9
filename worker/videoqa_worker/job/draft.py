"""AttemptDraft: the answers of an attempt in the making, and what the result says of them.

The steps of an attempt hand it from one to the next; when all of them are done it becomes a result.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from videoqa import errors
from videoqa.contract import (
    Answer,
    FrameUsed,
    Input,
    Sampling,
    Segment,
    SourceInfo,
    Usage,
    Video,
    Warn,
    redact_url,
)
from videoqa_worker.frames import SampledVideo, VideoInfo
from videoqa_worker.prompt import FrameInput
from videoqa_worker.sources import LocalCopy, SourceVersion

__all__ = ["AttemptDraft", "attribute_errors", "convert_frames"]


@dataclass
class AttemptDraft:
    """Findings of an attempt so far."""

    sampling: Sampling = field(default_factory=Sampling)
    """The sampling that is used: with the defaults of the model's processor filled in."""
    answers: tuple[Answer, ...] = ()
    segments: list[Segment] = field(default_factory=list)
    frames: list[FrameUsed] = field(default_factory=list)
    sources: list[SourceInfo] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    media: list[FrameInput] = field(default_factory=list)
    versions: list[SourceVersion] = field(default_factory=list)
    bytes_fetched: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def timing(self, stage: errors.Stage) -> Iterator[None]:
        """Counts the time of the block to this stage."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - begun

    def count_as_fetching(self, seconds: float) -> None:
        """Moves time from sampling to fetching: it was spent waiting for bytes."""
        self.seconds["sampling"] -= seconds
        self.seconds["fetching"] += seconds

    def note_source(self, item: Input, copy: LocalCopy, info: VideoInfo) -> None:
        """Adds what the result says of an input."""
        video = item if isinstance(item, Video) else None
        self.bytes_fetched += copy.fetched_bytes
        self.sources.append(
            SourceInfo(
                url=redact_url(item.url),
                kind=item.kind,
                size_bytes=copy.size_bytes,
                etag=copy.etag,
                version_id=copy.version_id,
                start=video.start if video else None,
                end=video.end if video else None,
                duration_s=info.duration_s if video else None,
                fps=info.fps if video else None,
                width=info.width,
                height=info.height,
                codec=info.codec,
                format=info.format,
            )
        )

    def note_warnings(self, number: int, warnings: Sequence[Warn]) -> None:
        """Adds warnings about the input with this number, each once."""
        for warning in warnings:
            attributed = warning.model_copy(update={"param": f"inputs.{number}"})
            if attributed not in self.warnings:
                self.warnings.append(attributed)

    def usage(self, queued_s: float) -> Usage:
        given = [answer for part in self.segments for answer in part.answers] + list(self.answers)
        return Usage(
            input_tokens=sum(answer.input_tokens for answer in given),
            output_tokens=sum(answer.output_tokens for answer in given),
            frames=len(self.frames) + sum(len(part.frames) for part in self.segments),
            bytes_fetched=self.bytes_fetched,
            queued_s=round(queued_s, 4),
            fetching_s=round(self.seconds["fetching"], 4),
            sampling_s=round(self.seconds["sampling"], 4),
            generating_s=round(self.seconds["generating"], 4),
        )


@contextmanager
def attribute_errors(param: str) -> Iterator[None]:
    """Sets this part of the request as the `param` of errors that name none."""
    try:
        yield
    except (errors.SourceError, errors.SamplingError, errors.GenerationError) as error:
        error.param = error.param or param
        raise


def convert_frames(
    number: int, kind: Literal["image", "video"], video: SampledVideo
) -> tuple[FrameInput, tuple[FrameUsed, ...]]:
    """Returns an input's frames for the model, and for the result."""
    used = tuple(
        FrameUsed(
            input=number,
            index=frame.index,
            pts_s=round(frame.pts_s, 6),
            asked_s=round(frame.asked_s, 6),
            exact=frame.exact,
        )
        for frame in video.frames
    )
    pixels = tuple(frame.pixels for frame in video.frames)
    return FrameInput(kind, pixels, tuple(frame.pts_s for frame in video.frames)), used
