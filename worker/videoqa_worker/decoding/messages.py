"""What a worker and its decoding process say to each other.

They take turns, and the worker begins: `Command`; then the process either asks for bytes
(`Ensure`, answered by `Present` or `Abort`, as often as it likes) or ends the order with
`Sampled` or `Failed`. An order in segments has a `Sampled` for each, and the process goes on when
it is told to (`Continue`, or `Abort`). So it does where it goes through segments before the one that
is wanted, and says so (`Skipped`). What comes from the process is believed no further than these fields
and limits: a video may have taken it over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, TypeAdapter

from videoqa.contract import Model, Sampling, Warn
from videoqa_worker.frames import FrameLimits, SparseFile, VideoInfo

__all__ = [
    "FROM_PROCESS",
    "MAX_TEXT",
    "Abort",
    "Command",
    "Continue",
    "Ensure",
    "Failed",
    "FrameHeader",
    "FromProcess",
    "Present",
    "Ready",
    "Sampled",
    "SegmentHeader",
    "Setup",
    "Skipped",
]

MAX_TEXT = 10_000
"""Characters that a process may add to a job's record."""
Offset = Annotated[int, Field(ge=0, le=1 << 62)]
SpanList = tuple[tuple[Offset, Offset], ...]
Side = Annotated[int, Field(gt=0, le=1 << 20)]


class Setup(Model):
    """The first words to a new process: what holds for all its orders."""

    limits: FrameLimits
    memory_bytes: PositiveInt


class Command(Model):
    """Take these frames of this file."""

    path_hex: str
    """The path's bytes: not every name is text."""
    size_bytes: Offset
    present: SpanList
    sampling: Sampling | None
    """None: the file is a still picture."""
    start: float | None = None
    end: float | None = None
    first: Offset = 0
    """With which segment to begin."""

    @classmethod
    def of(
        cls,
        file: SparseFile,
        sampling: Sampling | None,
        start: float | None,
        end: float | None,
        first: int = 0,
    ) -> Command:
        return cls(
            path_hex=os.fsencode(file.path.absolute()).hex(),
            size_bytes=file.size_bytes,
            present=tuple(file.present),
            sampling=sampling,
            start=start,
            end=end,
            first=first,
        )

    @property
    def path(self) -> Path:
        return Path(os.fsdecode(bytes.fromhex(self.path_hex)))


class Present(Model):
    """The answer to `Ensure`: all that is there now."""

    kind: Literal["present"] = "present"
    spans: SpanList


class Continue(Model):
    """The answer to a segment that is not the last, or to `Skipped`: take the next."""

    kind: Literal["continue"] = "continue"


class Abort(Model):
    """The answer to `Ensure` if the bytes cannot be had, or to a segment: end this order."""

    kind: Literal["abort"] = "abort"


class Ready(Model):
    """The process has imported what it needs."""

    kind: Literal["ready"] = "ready"


class Ensure(Model):
    """The process waits for these bytes."""

    kind: Literal["ensure"] = "ensure"
    spans: SpanList


class Skipped(Model):
    """The process has gone through a segment that is not wanted, on its way to the next that is."""

    kind: Literal["skipped"] = "skipped"


class FrameHeader(Model):
    """A frame but for its pixels, which lie in the shared memory in the same order."""

    index: int | None
    pts_s: float
    exact: bool
    asked_s: float
    height: Side
    width: Side

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the pixels, `uint8[H, W, 3]`."""
        return self.height, self.width, 3


class SegmentHeader(Model):
    """Which segment of the video it is."""

    number: Offset
    total: Annotated[int, Field(gt=0, le=1 << 30)]
    start_s: Annotated[float, Field(ge=0)]
    end_s: float


class Sampled(Model):
    """The frames were taken; a descriptor of the pixels comes with this."""

    kind: Literal["sampled"] = "sampled"
    frames: Annotated[tuple[FrameHeader, ...], Field(min_length=1)]
    info: VideoInfo
    warnings: tuple[Warn, ...] = ()
    segment: SegmentHeader | None = None
    """Whose frames they are, in an order in segments."""


class Failed(Model):
    """The code of a SamplingError, or of InternalError."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str = Field(max_length=MAX_TEXT)
    param: str | None = Field(default=None, max_length=MAX_TEXT)


FromProcess = Annotated[Ready | Ensure | Skipped | Sampled | Failed, Field(discriminator="kind")]
FROM_PROCESS: TypeAdapter[Ready | Ensure | Skipped | Sampled | Failed] = TypeAdapter(FromProcess)
