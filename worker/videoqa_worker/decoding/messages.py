"""The protocol between a worker and its decoding process.

The two sides send in turn, and the worker begins with a `Command`. The process then either asks
for bytes (`Ensure`, answered by `Present` or `Abort`, as often as needed) or ends the command with
`Sampled`, `Inspected` or `Failed`. For a video in segments it sends a `Sampled` for each, and a `Skipped` for each
segment that it decodes through on the way to the first wanted one; after both it waits for `Continue`
or `Abort`. The worker trusts the process no further than these fields and limits go: a video may have
taken it over.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, TypeAdapter, field_validator

from videoqa.contract import Model, Sampling, Warn
from videoqa_worker.frames import SparseFile, VideoHeader, VideoInfo
from videoqa_worker.settings import FrameLimits

__all__ = [
    "FROM_PROCESS",
    "MAX_TEXT",
    "Abort",
    "Command",
    "Confinement",
    "Continue",
    "Ensure",
    "Failed",
    "FrameHeader",
    "FromProcess",
    "HeaderWish",
    "Inspected",
    "Present",
    "Ready",
    "Sampled",
    "SegmentHeader",
    "Setup",
    "Skipped",
]

_MAX_NUMBER = 1 << 62
MAX_TEXT = 10_000
"""Characters that a process may add to a job's record, at most."""
Offset = Annotated[int, Field(ge=0, le=_MAX_NUMBER)]
SpanList = tuple[tuple[Offset, Offset], ...]
Side = Annotated[int, Field(gt=0, le=1 << 20)]
HeaderWish = Literal["frames", "header", "header_alone"]
Seconds = Annotated[float, Field(ge=-1e9, le=1e9)]


class Setup(Model):
    """The first message to a new process, with the limits that hold for all its commands."""

    limits: FrameLimits
    memory_bytes: PositiveInt
    cpu_s: PositiveInt
    """CPU time after which the kernel ends the process."""
    uid: PositiveInt
    """The user to become, where the worker runs as root."""
    has_opencv: bool = False
    """True: it is imported, if it is installed, for the sampling method `guide`."""


class Command(Model):
    """Tells the process which frames to sample; the file's descriptor comes with this message."""

    size_bytes: Offset
    present: SpanList
    sampling: Sampling | None
    """The sampling method; None for a still image."""
    start: float | None = None
    end: float | None = None
    first: Offset = 0
    """Number of the segment to begin with."""
    wish: HeaderWish = "frames"
    """header: no frame is decoded; header_alone: not even the index is read, since the file is fetched whole."""
    most_side: PositiveInt | None = None
    """Pixels of the longer side to which frames are scaled down; None: as they are."""

    @classmethod
    def of(
        cls,
        file: SparseFile,
        sampling: Sampling | None,
        start: float | None,
        end: float | None,
        first: int = 0,
        wish: HeaderWish = "frames",
        most_side: int | None = None,
    ) -> Command:
        """Returns the command to sample this file, without its descriptor."""
        return cls(
            size_bytes=file.size_bytes,
            present=tuple(file.present),
            sampling=sampling,
            start=start,
            end=end,
            first=first,
            wish=wish,
            most_side=most_side,
        )


class Present(Model):
    """The reply to `Ensure`, with all spans that are present now."""

    kind: Literal["present"] = "present"
    spans: SpanList


class Continue(Model):
    """The reply to `Skipped`, or to a segment that is not the last: sample the next one."""

    kind: Literal["continue"] = "continue"


class Abort(Model):
    """The reply that ends a command: the bytes cannot be fetched, or no more is wanted."""

    kind: Literal["abort"] = "abort"


class Confinement(Model):
    """The layers that confine the process, as `confine` found them before the first input."""

    held: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """The others, each with its reason."""

    @property
    def is_closed(self) -> bool:
        """True if a layer holds that takes every path away."""
        return any(layer.startswith(("Landlock", "seccomp")) for layer in self.held)


class Ready(Model):
    """The process has imported its libraries, is confined, and waits for a command."""

    kind: Literal["ready"] = "ready"
    confinement: Confinement = Confinement()


class Ensure(Model):
    """The process needs these bytes and waits for them."""

    kind: Literal["ensure"] = "ensure"
    spans: SpanList


class Skipped(Model):
    """The process has decoded through a segment that is not wanted, or some keyframes in search of shots."""

    kind: Literal["skipped"] = "skipped"


class FrameHeader(Model):
    """The fields of a frame without its pixels, which the shared memory holds in the same order."""

    index: Offset | None
    pts_s: Seconds
    exact: bool
    asked_s: Seconds
    height: Side
    width: Side

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the pixels, `uint8[H, W, 3]`."""
        return self.height, self.width, 3


class SegmentHeader(Model):
    """Number and times of a segment."""

    number: Offset
    total: Annotated[int, Field(gt=0, le=1 << 30)]
    start_s: Annotated[float, Field(ge=0, le=1e9)]
    end_s: Seconds


class Sampled(Model):
    """The sampled frames; the descriptor of their pixels comes with this message."""

    kind: Literal["sampled"] = "sampled"
    frames: Annotated[tuple[FrameHeader, ...], Field(min_length=1)]
    info: VideoInfo
    warnings: tuple[Warn, ...] = ()
    segment: SegmentHeader | None = None
    """The segment that the frames belong to, for a video in segments."""

    @field_validator("info")
    @classmethod
    def _check_info(cls, info: VideoInfo) -> VideoInfo:
        """Refuses numbers that no file has room for: each is copied into the result."""
        numbers = (info.duration_s, info.fps, info.width, info.height, info.start_offset_s)
        if any(abs(n or 0) > _MAX_NUMBER for n in numbers):
            raise ValueError(f"got a property of the video beyond {_MAX_NUMBER}")
        return info


class Inspected(Model):
    """The header of a video, in place of frames."""

    kind: Literal["inspected"] = "inspected"
    width: Annotated[int, Field(ge=0, le=1 << 20)]
    height: Annotated[int, Field(ge=0, le=1 << 20)]
    seconds: Annotated[float, Field(ge=0, le=1e9)] | None
    frames: Annotated[int, Field(ge=0, le=1 << 30)] | None
    segments: Annotated[int, Field(gt=0, le=1 << 30)]
    spans: SpanList | None
    is_image: bool = False

    @classmethod
    def of(cls, header: VideoHeader) -> Inspected:
        """Returns the message about a header."""
        return cls.model_validate(asdict(header))

    def read(self) -> VideoHeader:
        """Returns the header."""
        spans = None if self.spans is None else list(self.spans)
        return VideoHeader(
            self.width, self.height, self.seconds, self.frames, self.segments, spans, self.is_image
        )  # fmt: skip


class Failed(Model):
    """The command failed, with the code of a SamplingError."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str = Field(max_length=MAX_TEXT)
    param: str | None = Field(default=None, max_length=MAX_TEXT)


_AnyMessage = Ready | Ensure | Skipped | Sampled | Inspected | Failed
FromProcess = Annotated[_AnyMessage, Field(discriminator="kind")]
FROM_PROCESS: TypeAdapter[_AnyMessage] = TypeAdapter(FromProcess)
