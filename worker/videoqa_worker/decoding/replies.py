"""Checks and parses the messages of a decoding process, which a video may have taken over."""

from __future__ import annotations

import os

from videoqa_worker.decoding.channel import ProtocolError
from videoqa_worker.decoding.messages import (
    FROM_PROCESS,
    MAX_TEXT,
    Ensure,
    Failed,
    Inspected,
    Ready,
    Sampled,
    Skipped,
)
from videoqa_worker.decoding.shared_memory import map_arrays
from videoqa_worker.frames import Frame, SampledSegment, SampledVideo
from videoqa_worker.settings import FrameLimits

__all__ = ["Received", "parse_reply"]

Received = Ready | Ensure | Skipped | Failed | Inspected | SampledVideo | SampledSegment


def parse_reply(
    body: bytes, descriptor: int | None, limits: FrameLimits, most_frames: int
) -> Received:
    """Parses a message; frames come with their pixels, from the descriptor, which is closed.

    Arguments:
        most_frames: as many as were asked for.

    Raises:
        ValidationError, ProtocolError, UnsealedError: the message is not to be trusted.
    """
    try:
        message = FROM_PROCESS.validate_json(body)
        if not isinstance(message, Sampled):
            return message
        if descriptor is None:
            raise ProtocolError("got frames without their pixels")
        _check_limits(message, limits, most_frames)
        return _assemble(message, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _assemble(message: Sampled, descriptor: int) -> SampledVideo | SampledSegment:
    shapes = [header.shape for header in message.frames]
    frames = tuple(
        Frame(header.index, header.pts_s, header.exact, pixels, header.asked_s)
        for header, pixels in zip(message.frames, map_arrays(descriptor, shapes), strict=True)
    )
    video = SampledVideo(frames, message.info, message.warnings)
    segment = message.segment
    if segment is None:
        return video
    return SampledSegment(segment.number, segment.total, segment.start_s, segment.end_s, video)


def _check_limits(message: Sampled, limits: FrameLimits, most_frames: int) -> None:
    if len(message.frames) > most_frames:
        raise ProtocolError(f"got {len(message.frames)} frames, expected at most {most_frames}")
    most = limits.max_image_pixels if message.info.is_image else limits.max_pixels
    if any(header.height * header.width > most for header in message.frames):
        raise ProtocolError(f"got a frame that has more than {most} pixels")
    total = sum(3 * header.height * header.width for header in message.frames)
    most_bytes = max(3 * most, limits.max_frames_bytes)
    if total > most_bytes:
        raise ProtocolError(f"got frames of {total} bytes, expected at most {most_bytes}")
    texts = [message.info.codec, message.info.format]
    texts += [text for w in message.warnings for text in (w.code, w.message, w.param)]
    if sum(len(text or "") for text in texts) > MAX_TEXT:
        raise ProtocolError(f"got more than {MAX_TEXT} characters about the frames")
