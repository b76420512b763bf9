"""The loop of a decoding process: receives a command, asks for bytes, sends the frames."""

from __future__ import annotations

import errno
import gc
import os
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter

from videoqa.contract import Sampling
from videoqa.errors import DecoderOutOfMemory, DecodingFailed, SamplingError
from videoqa_worker.decoding.channel import Channel, ClosedError, ProtocolError
from videoqa_worker.decoding.libc import trim_heap
from videoqa_worker.decoding.messages import (
    MAX_TEXT,
    Abort,
    Command,
    Confinement,
    Continue,
    Ensure,
    Failed,
    FrameHeader,
    Inspected,
    Present,
    Ready,
    Sampled,
    SegmentHeader,
    Skipped,
)
from videoqa_worker.decoding.shared_memory import write_arrays
from videoqa_worker.frames import (
    SampledSegment,
    SampledVideo,
    Span,
    Spans,
    VideoHeader,
    read_header,
    read_image,
    sample_frames,
    sample_segments,
)
from videoqa_worker.settings import FrameLimits

__all__ = ["serve"]

_ENSURE_REPLY: TypeAdapter[Present | Abort] = TypeAdapter(
    Annotated[Present | Abort, Field(discriminator="kind")]
)

_IDLE_S = 1.0
"""Time without a command after which a process gives memory back; the next command then takes 5 ms more."""

_LARGE_BYTES = 64 << 20
"""Size of frames beyond which a process gives their memory back at once."""

_SEGMENT_REPLY: TypeAdapter[Continue | Abort] = TypeAdapter(
    Annotated[Continue | Abort, Field(discriminator="kind")]
)


class AbortedError(Exception):
    """The worker aborted the command, and knows the reason."""


class WorkerFile:
    """A SparseFile whose missing bytes the worker fetches."""

    def __init__(self, command: Command, descriptor: int, channel: Channel) -> None:
        self._descriptor = descriptor
        self.size_bytes: int = command.size_bytes
        self.present = Spans(command.present)
        self._channel = channel

    def open_file(self) -> int:
        return os.dup(self._descriptor)

    def ensure(self, spans: Sequence[Span]) -> None:
        cut = [(max(0, start), min(end, self.size_bytes)) for start, end in spans]
        missing = tuple(gap for span in cut for gap in self.present.missing(*span))
        if not missing:
            return
        self._channel.send(Ensure(spans=missing))
        body, _ = self._channel.receive() or (b"", None)
        reply = _ENSURE_REPLY.validate_json(body)
        if isinstance(reply, Abort):
            raise AbortedError
        self.present = Spans(reply.spans)


def serve(channel: Channel, limits: FrameLimits, confinement: Confinement) -> None:
    """Executes commands until the worker closes its end.

    Raises:
        ClosedError, ConnectionError: the worker closed its end.
    """
    gc.collect()
    gc.freeze()
    channel.send(Ready(confinement=confinement))
    while True:
        body, descriptor = _await_command(channel)
        command = Command.model_validate_json(body)
        if descriptor is None:
            raise ProtocolError("got a command without the file's descriptor")
        try:
            _run_command(channel, WorkerFile(command, descriptor, channel), command, limits)
        finally:
            os.close(descriptor)
        # Open videos are reference cycles. Without this 65 MB become 150 within 300 commands on
        # a small clip; it costs 0.4 ms, after the frames were sent.
        gc.collect()


def _await_command(channel: Channel) -> tuple[bytes, int | None]:
    """Returns the next command; if none comes within a moment, frees what the last ones used."""
    received = channel.receive(_IDLE_S)
    if received is None:
        trim_heap()
        received = channel.receive()
    return received or (b"", None)


def _run_command(channel: Channel, file: WorkerFile, command: Command, limits: FrameLimits) -> None:
    try:
        if command.wish != "frames":
            channel.send(Inspected.of(_inspect(file, command, limits)))
            return
        for video, segment in _sample(channel, file, command, limits):
            sampled, pixels = _split_pixels(video)
            del video
            size_bytes = sum(array.nbytes for array in pixels)
            descriptor = write_arrays(_pop_each(pixels))
            if size_bytes > _LARGE_BYTES:  # the worker looks at this process's memory next
                trim_heap()
            _send_pixels(channel, sampled.model_copy(update={"segment": segment}), descriptor)
            if segment is not None and segment.number < segment.total - 1:
                gc.collect()  # pictures are reference cycles too
                _await_continue(channel)
    except ClosedError:
        raise
    except Exception as error:  # noqa: BLE001 (the worker must learn of any exception)
        channel.send(_make_failure(error))


def _sample(
    channel: Channel, file: WorkerFile, command: Command, limits: FrameLimits
) -> Iterator[tuple[SampledVideo, SegmentHeader | None]]:
    """Yields the sampled video, or one for each segment."""

    def report_skipped() -> None:
        channel.send(Skipped())
        _await_continue(channel)

    sampling, start, end = command.sampling, command.start, command.end
    side = command.most_side
    if sampling is None:
        yield read_image(file, most_side=side, limits=limits), None
    elif sampling.method == "segment":
        first = command.first
        parts = sample_segments(
            file,
            sampling,
            start=start,
            end=end,
            first=first,
            most_side=side,
            limits=limits,
            on_skipped=report_skipped,
        )
        # A loop's variable would hold a segment until the next is decoded, and both take memory.
        yield from map(_add_header, parts)
    else:
        yield (
            sample_frames(file, sampling, start=start, end=end, most_side=side, limits=limits),
            None,
        )


def _inspect(file: WorkerFile, command: Command, limits: FrameLimits) -> VideoHeader:
    """Reads the header of a video; decodes nothing."""
    sampling = command.sampling or Sampling()
    is_whole = command.wish == "header_alone"
    return read_header(file, sampling, command.start, command.end, limits, whole=is_whole)


def _add_header(part: SampledSegment) -> tuple[SampledVideo, SegmentHeader]:
    header = SegmentHeader(
        number=part.number, total=part.total, start_s=part.start_s, end_s=part.end_s
    )
    return part.video, header


def _send_pixels(channel: Channel, sampled: Sampled, descriptor: int) -> None:
    try:
        channel.send(sampled, descriptor)
    finally:
        os.close(descriptor)


def _await_continue(channel: Channel) -> None:
    """Waits until the worker asks for the next segment; raises AbortedError if it wants none."""
    body, _ = channel.receive() or (b"", None)
    if isinstance(_SEGMENT_REPLY.validate_json(body), Abort):
        raise AbortedError


def _split_pixels(video: SampledVideo) -> tuple[Sampled, deque[npt.NDArray[np.uint8]]]:
    headers = tuple(
        FrameHeader(
            index=frame.index,
            pts_s=frame.pts_s,
            exact=frame.exact,
            asked_s=frame.asked_s,
            height=frame.pixels.shape[0],
            width=frame.pixels.shape[1],
        )
        for frame in video.frames
    )
    sampled = Sampled(frames=headers, info=video.info, warnings=video.warnings)
    return sampled, deque(frame.pixels for frame in video.frames)


def _pop_each(
    pixels: deque[npt.NDArray[np.uint8]],
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the arrays and drops each one before the next is copied."""
    while pixels:
        yield pixels.popleft()


def _make_failure(error: Exception) -> Failed:
    if _is_out_of_memory(error):
        return Failed(
            code=DecoderOutOfMemory.code,
            message="decoding needs more memory than the worker's VIDEOQA_DECODER_MEMORY_BYTES; "
            "scale the video down, or ask for fewer frames",
        )
    if isinstance(error, SamplingError):
        return Failed(code=error.code, message=error.message[:MAX_TEXT], param=error.param)
    if not isinstance(error, AbortedError):
        with suppress(OSError):  # the worker logs what is printed here
            traceback.print_exception(error)
    return Failed(
        code=DecodingFailed.code,
        message=f"a library failed on this input ({type(error).__name__}: {str(error)[:1000]}); "
        "encode it again, as H.264 in MP4 or as PNG for example, and report a bug with the file",
    )


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Looks at the causes too, since FFmpeg's opening errors were already translated into ours."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
