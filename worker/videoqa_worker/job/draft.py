"""AttemptDraft: the answers of an attempt in the making, and what the result says of them.

The steps of an attempt hand it from one to the next; when all of them are done it becomes a result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from videoqa import errors
from videoqa.contract import (
    Answer,
    FrameUsed,
    Generation,
    GenerationInForce,
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
from videoqa_worker.job.tally import AttemptTally
from videoqa_worker.sources import LocalCopy, SourceVersion

if TYPE_CHECKING:  # a dry run has no need of torch
    from videoqa_worker.prompt import FrameInput

__all__ = ["AttemptDraft", "attribute_errors", "convert_frames", "warn_of_unused"]


@dataclass
class AttemptDraft:
    """Findings of an attempt so far."""

    sampling: Sampling = field(default_factory=Sampling)
    """The sampling that is used: with the defaults of the model's processor filled in."""
    generation: GenerationInForce = field(default_factory=GenerationInForce)
    """The options that are in force: the request's, and the checkpoint's own."""
    answers: tuple[Answer, ...] = ()
    segments: list[Segment] = field(default_factory=list)
    frames: list[FrameUsed] = field(default_factory=list)
    sources: list[SourceInfo] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    media: list[FrameInput] = field(default_factory=list)
    versions: list[SourceVersion] = field(default_factory=list)
    is_reread: bool = False
    """True if an input's bytes may be those of another version than `versions` has: its answers are not cached."""
    bytes_fetched: int = 0
    frames_shared: int = 0
    """Frames that another job has decoded."""
    tally: AttemptTally = field(default_factory=AttemptTally)

    @contextmanager
    def timing(self, stage: errors.Stage) -> Iterator[None]:
        """Counts the time of the block to this stage."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.tally.seconds[stage] += time.monotonic() - begun

    def count_as_fetching(self, seconds: float) -> None:
        """Moves time from sampling to fetching: it was spent waiting for bytes."""
        self.tally.seconds["sampling"] -= seconds
        self.tally.seconds["fetching"] += seconds

    def count_frames(self, frames: Sequence[FrameUsed], *, is_own: bool = True) -> None:
        """Counts frames that this attempt has taken, or got from another job."""
        if not is_own:
            self.frames_shared += len(frames)
        exact = sum(frame.exact for frame in frames)
        self.tally.frames_exact += exact
        self.tally.frames_near += len(frames) - exact

    def note_source(self, item: Input, copy: LocalCopy, info: VideoInfo) -> None:
        """Adds what the result says of an input."""
        video = item if isinstance(item, Video) else None
        self.bytes_fetched += copy.fetched_bytes
        self.is_reread |= copy.is_reread
        self.sources.append(
            SourceInfo(
                url=redact_url(item.url),
                kind="image" if info.is_image else "video",
                size_bytes=copy.size_bytes,
                etag=copy.etag,
                version_id=copy.version_id,
                start=video.start if video else None,
                end=video.end if video else None,
                duration_s=info.duration_s,
                start_offset_s=info.start_offset_s,
                fps=info.fps,
                width=info.width,
                height=info.height,
                codec=info.codec,
                format=info.format,
                dynamic_range=info.dynamic_range,
                tone_mapped=info.tone_mapped,
            )
        )

    def note_warnings(self, number: int, warnings: Sequence[Warn]) -> None:
        """Adds warnings about the input with this number, each once."""
        param = f"inputs.{number}"
        self.add_warnings([warning.model_copy(update={"param": param}) for warning in warnings])

    def add_warnings(self, warnings: Sequence[Warn]) -> None:
        """Adds warnings, each once."""
        for warning in warnings:
            if warning not in self.warnings:
                self.warnings.append(warning)

    def usage(self, queued_s: float) -> Usage:
        seconds = self.tally.seconds
        given = [answer for part in self.segments for answer in part.answers] + list(self.answers)
        return Usage(
            input_tokens=sum(answer.input_tokens for answer in given),
            output_tokens=sum(answer.output_tokens for answer in given),
            frames=len(self.frames) + sum(len(part.frames) for part in self.segments),
            frames_shared=self.frames_shared,
            bytes_fetched=self.bytes_fetched,
            queued_s=round(queued_s, 4),
            fetching_s=round(seconds.get("fetching", 0.0), 4),
            sampling_s=round(seconds.get("sampling", 0.0), 4),
            generating_s=round(seconds.get("generating", 0.0), 4),
        )


def warn_of_unused(generation: Generation) -> list[Warn]:
    """Returns a warning if a request filters the tokens that are drawn, but has none drawn."""
    filters = [
        name
        for name in ("top_p", "top_k", "min_p")
        if getattr(generation, name) != Generation.model_fields[name].default
    ]
    if generation.temperature > 0 or not filters:
        return []
    message = (
        f"got {', '.join(filters)} with temperature 0, which has no effect: the answer is greedy; set a temperature "
        "to sample"
    )
    return [Warn(code="sampling_unused", message=message, param=f"generation.{filters[0]}")]


@contextmanager
def attribute_errors(param: str) -> Iterator[None]:
    """Sets this part of the request as the `param` of errors that name none."""
    try:
        yield
    except (errors.SourceError, errors.SamplingError, errors.GenerationError) as error:
        if isinstance(error, errors.AnswerNotServed):
            param = f"{param.removesuffix('.text')}.answer"
        error.param = error.param or param
        raise


def convert_frames(
    number: int, kind: Literal["image", "video"], video: SampledVideo, sampling: Sampling
) -> tuple[FrameInput, tuple[FrameUsed, ...]]:
    """Returns an input's frames for the model, and for the result.

    Arguments:
        sampling: has the limits of a frame.
        kind: the kind that the request names; a still picture is an image to the model, also if it was sent as a video.
    """
    from videoqa_worker.prompt import FrameInput, PictureLimits

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
    times_s = tuple(frame.pts_s for frame in video.frames)
    is_image, duration_s = video.info.is_image, video.info.duration_s
    limits = PictureLimits.of(sampling)
    shown: Literal["image", "video"] = "image" if is_image else "video"
    media = FrameInput(shown, pixels, times_s, kind, duration_s, limits)
    return media, used
