"""Decodes a packet, of HEVC also without what is only said about its pictures.

With `err_detect=explode`, which tells of references that are missing, the decoder of HEVC also
refuses a packet for one malformed message (SEI), which players ignore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from av import Packet, VideoFrame
from av.error import FFmpegError
from av.stream import Stream

from videoqa_worker.frames.container.demuxer import OpenVideo

__all__ = ["decode_packet"]

_SLICE_TYPES = range(32)
"""NAL unit types by ITU-T H.265, table 7-1."""
_PARAMETER_SET_TYPES = range(33, 35)
"""Parameters of a sequence and of a picture (SPS, PPS); decoding needs no other."""
_START_CODE = b"\0\0\1"


def decode_packet(
    video: OpenVideo, packet: Packet[Stream] | None, *, is_empty: bool
) -> tuple[list[VideoFrame], bool]:
    """The pictures that now come out, and whether the decoder was given all it needs.

    `is_empty`: the decoder holds nothing back.

    Raises:
        FFmpegError.
    """
    try:
        return video.decoder.decode(packet), True
    except FFmpegError:
        if packet is None or video.decoder.name != "hevc":
            raise
        for shortened, complete in _drop_messages(packet, _length_prefix_bytes(video)):
            if (
                packet.is_keyframe and is_empty
            ):  # what failed has made it forget that it starts here
                video.decoder.flush_buffers()
            with suppress(FFmpegError):
                return video.decoder.decode(shortened), complete
        raise


def _drop_messages(packet: Packet[Stream], size: int) -> Iterator[tuple[Packet[Stream], bool]]:
    """Shorter packets to try in its place, and whether each has all that decoding needs."""
    units = list(_split_units(bytes(packet), size))
    for kept, complete in ((*_SLICE_TYPES, *_PARAMETER_SET_TYPES), True), (_SLICE_TYPES, False):
        chosen = [unit for unit in units if len(unit) > 2 and unit[0] >> 1 in kept]
        if chosen and len(chosen) < len(units):
            is_empty = (len(unit).to_bytes(size, "big") if size else _START_CODE for unit in chosen)
            body = b"".join(start + unit for start, unit in zip(is_empty, chosen, strict=True))
            yield _copy_packet(packet, body), complete


def _length_prefix_bytes(video: OpenVideo) -> int:
    """Before each unit, by ISO/IEC 14496-15, 8.3.2; 0 if start codes stand there (Annex B)."""
    header = video.decoder.extradata or b""
    return (header[21] & 3) + 1 if len(header) > 22 and header[0] == 1 else 0


def _split_units(body: bytes, size: int) -> Iterator[bytes]:
    if not size:
        yield from (unit.rstrip(b"\0") for unit in body.split(_START_CODE)[1:])
        return
    at = 0
    while at + size < len(body):
        end = at + size + int.from_bytes(body[at : at + size], "big")
        yield body[at + size : end]
        at = end


def _copy_packet(packet: Packet[Stream], body: bytes) -> Packet[Stream]:
    other: Packet[Stream] = Packet(body)
    other.pts, other.dts, other.duration = packet.pts, packet.dts, packet.duration
    if packet.time_base is not None:
        other.time_base = packet.time_base
    other.is_keyframe = packet.is_keyframe
    return other
