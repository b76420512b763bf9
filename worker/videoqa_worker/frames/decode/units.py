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

__all__ = ["decode"]

_SLICES = range(32)
"""NAL unit types by ITU-T H.265, table 7-1."""
_SETS = range(33, 35)
"""Parameters of a sequence and of a picture (SPS, PPS); decoding needs no other."""
_START = b"\0\0\1"


def decode(
    video: OpenVideo, packet: Packet[Stream] | None, *, starts: bool
) -> tuple[list[VideoFrame], bool]:
    """The pictures that now come out, and whether the decoder was given all it needs.

    `starts`: the decoder holds nothing back.

    Raises:
        FFmpegError.
    """
    try:
        return video.decoder.decode(packet), True
    except FFmpegError:
        if packet is None or video.decoder.name != "hevc":
            raise
        for shorter, complete in _without_messages(packet, _length_bytes(video)):
            if packet.is_keyframe and starts:  # what failed has made it forget that it starts here
                video.decoder.flush_buffers()
            with suppress(FFmpegError):
                return video.decoder.decode(shorter), complete
        raise


def _without_messages(packet: Packet[Stream], size: int) -> Iterator[tuple[Packet[Stream], bool]]:
    """Shorter packets to try in its place, and whether each has all that decoding needs."""
    units = list(_units(bytes(packet), size))
    for kept, complete in ((*_SLICES, *_SETS), True), (_SLICES, False):
        chosen = [unit for unit in units if len(unit) > 2 and unit[0] >> 1 in kept]
        if chosen and len(chosen) < len(units):
            starts = (len(unit).to_bytes(size, "big") if size else _START for unit in chosen)
            body = b"".join(start + unit for start, unit in zip(starts, chosen, strict=True))
            yield _like(packet, body), complete


def _length_bytes(video: OpenVideo) -> int:
    """Before each unit, by ISO/IEC 14496-15, 8.3.2; 0 if start codes stand there (Annex B)."""
    header = video.decoder.extradata or b""
    return (header[21] & 3) + 1 if len(header) > 22 and header[0] == 1 else 0


def _units(body: bytes, size: int) -> Iterator[bytes]:
    if not size:
        yield from (unit.rstrip(b"\0") for unit in body.split(_START)[1:])
        return
    at = 0
    while at + size < len(body):
        end = at + size + int.from_bytes(body[at : at + size], "big")
        yield body[at + size : end]
        at = end


def _like(packet: Packet[Stream], body: bytes) -> Packet[Stream]:
    other: Packet[Stream] = Packet(body)
    other.pts, other.dts, other.duration = packet.pts, packet.dts, packet.duration
    if packet.time_base is not None:
        other.time_base = packet.time_base
    other.is_keyframe = packet.is_keyframe
    return other
