"""The loop of a decoding process: an order, perhaps a few requests for bytes, an answer."""

from __future__ import annotations

import errno
import gc
import os
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter

from videoqa.errors import DecoderOutOfMemory, InternalError, SamplingError
from videoqa_worker.decoding.channel import Channel
from videoqa_worker.decoding.messages import (
    MAX_TEXT,
    Ensure,
    Failed,
    FrameNote,
    Onward,
    Order,
    Passed,
    Present,
    Ready,
    Refused,
    Sampled,
    SegmentNote,
)
from videoqa_worker.decoding.shared import write_arrays
from videoqa_worker.frames import (
    FrameLimits,
    SampledSegment,
    SampledVideo,
    Span,
    Spans,
    read_image,
    sample_frames,
    sample_segments,
)

__all__ = ["serve"]

_REPLY: TypeAdapter[Present | Refused] = TypeAdapter(
    Annotated[Present | Refused, Field(discriminator="kind")]
)

_WORD: TypeAdapter[Onward | Refused] = TypeAdapter(
    Annotated[Onward | Refused, Field(discriminator="kind")]
)


class RefusedError(Exception):
    """The worker wants no more of this order, and knows why."""


class WorkerFile:
    """Media whose missing bytes the worker brings."""

    def __init__(self, order: Order, channel: Channel) -> None:
        self.path: Path = order.path
        self.size_bytes: int = order.size_bytes
        self.present = Spans(order.present)
        self._channel = channel

    def ensure(self, spans: Sequence[Span]) -> None:
        cut = [(max(0, start), min(end, self.size_bytes)) for start, end in spans]
        missing = tuple(gap for span in cut for gap in self.present.missing(*span))
        if not missing:
            return
        self._channel.send(Ensure(spans=missing))
        body, _ = self._channel.receive() or (b"", None)
        reply = _REPLY.validate_json(body)
        if isinstance(reply, Refused):
            raise RefusedError
        self.present = Spans(reply.spans)


def serve(channel: Channel, limits: FrameLimits) -> None:
    """Answers orders until the worker closes its end.

    Raises:
        EOFError, ConnectionError: it did.
    """
    gc.collect()
    gc.freeze()
    channel.send(Ready())
    while True:
        body, _ = channel.receive() or (b"", None)
        order = Order.model_validate_json(body)
        _answer(channel, WorkerFile(order, channel), order, limits)
        # Open videos hold themselves in cycles. Without this 65 MB become 150 within 300 orders
        # of a small clip; it costs 0.4 ms, after the answer.
        gc.collect()


def _answer(channel: Channel, file: WorkerFile, order: Order, limits: FrameLimits) -> None:
    try:
        for video, segment in _taken(channel, file, order, limits):
            sampled, pixels = _apart(video)
            del video
            descriptor = write_arrays(_given_away(pixels))
            _hand_over(channel, sampled.model_copy(update={"segment": segment}), descriptor)
            if segment is not None and segment.number < segment.total - 1:
                gc.collect()  # pictures hold themselves in cycles too
                _await_word(channel)
    except EOFError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, the worker must hear of it)
        channel.send(_failed(error))


def _taken(
    channel: Channel, file: WorkerFile, order: Order, limits: FrameLimits
) -> Iterator[tuple[SampledVideo, SegmentNote | None]]:
    """All that the order asks for: one, or one a segment."""

    def passed() -> None:
        channel.send(Passed())
        _await_word(channel)

    sampling, start, end = order.sampling, order.start, order.end
    if sampling is None:
        yield read_image(file.path, limits=limits), None
    elif sampling.method == "segment":
        first = order.first
        parts = sample_segments(
            file, sampling, start=start, end=end, first=first, limits=limits, passed=passed
        )
        # Not a loop: its variable would hold a segment until the next is decoded, and both take memory.
        yield from map(_noted, parts)
    else:
        yield sample_frames(file, sampling, start=start, end=end, limits=limits), None


def _noted(part: SampledSegment) -> tuple[SampledVideo, SegmentNote]:
    note = SegmentNote(number=part.number, total=part.total, start_s=part.start_s, end_s=part.end_s)
    return part.video, note


def _hand_over(channel: Channel, sampled: Sampled, descriptor: int) -> None:
    try:
        channel.send(sampled, descriptor)
    finally:
        os.close(descriptor)


def _await_word(channel: Channel) -> None:
    """Until the worker wants it to go on with the next segment."""
    body, _ = channel.receive() or (b"", None)
    if isinstance(_WORD.validate_json(body), Refused):
        raise RefusedError


def _apart(video: SampledVideo) -> tuple[Sampled, deque[npt.NDArray[np.uint8]]]:
    notes = tuple(
        FrameNote(
            index=frame.index,
            pts_s=frame.pts_s,
            exact=frame.exact,
            asked_s=frame.asked_s,
            height=frame.pixels.shape[0],
            width=frame.pixels.shape[1],
        )
        for frame in video.frames
    )
    sampled = Sampled(frames=notes, info=video.info, warnings=video.warnings)
    return sampled, deque(frame.pixels for frame in video.frames)


def _given_away(
    pixels: deque[npt.NDArray[np.uint8]],
) -> Iterator[npt.NDArray[np.uint8]]:
    """Each is freed before the next is copied."""
    while pixels:
        yield pixels.popleft()


def _failed(error: Exception) -> Failed:
    if _is_out_of_memory(error):
        return Failed(
            code=DecoderOutOfMemory.code,
            message="decoding needs more memory than the worker's decoder_memory_bytes; "
            "scale the video down, or ask for fewer frames",
        )
    if isinstance(error, SamplingError):
        return Failed(code=error.code, message=error.message[:MAX_TEXT], param=error.param)
    if not isinstance(error, RefusedError):
        with suppress(OSError):  # the worker logs what is printed here
            traceback.print_exception(error)
    return Failed(code=InternalError.code, message=f"{type(error).__name__}: {error}"[:1000])


def _is_out_of_memory(error: BaseException | None) -> bool:
    """FFmpeg's opening errors become ours before they come here: look at their causes too."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
