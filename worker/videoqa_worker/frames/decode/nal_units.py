"""Decodes a packet; retries it without what players ignore if it is refused.

With `err_detect=explode`, which reports missing references, the HEVC decoder also refuses a packet
for a single malformed SEI message. All decoders refuse a packet for malformed EXIF beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from av import Packet, VideoFrame
from av.stream import Stream

from videoqa_worker.frames.container.demuxer import OpenVideo
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES

__all__ = ["decode_packet"]

_SLICE_TYPES = range(32)
"""NAL unit types of slices (ITU-T H.265, table 7-1)."""
_PARAMETER_SET_TYPES = range(33, 35)
"""NAL unit types of SPS and PPS; decoding needs no other parameter sets."""
_START_CODE = b"\0\0\1"


def decode_packet(
    video: OpenVideo, packet: Packet[Stream] | None, *, is_empty: bool
) -> tuple[list[VideoFrame], bool]:
    """Decodes a packet.

    Arguments:
        is_empty: the decoder holds no packet back.

    Returns:
        The pictures that come out, and whether the decoder was given all that it needs.

    Raises:
        One of LIBRARY_FAILURES.
    """
    try:
        return video.decoder.decode(packet), True
    except LIBRARY_FAILURES:
        if packet is None:
            raise
        for shortened, complete in _shorten(packet, video):
            if (
                packet.is_keyframe and is_empty
            ):  # the failure made the decoder forget that it starts here
                video.decoder.flush_buffers()
            with suppress(*LIBRARY_FAILURES):
                return video.decoder.decode(shortened), complete
        raise


def _shorten(packet: Packet[Stream], video: OpenVideo) -> Iterator[tuple[Packet[Stream], bool]]:
    """Yields shortened packets to try, and whether each has all that decoding needs."""
    if _has_foreign_side_data(packet):
        yield _copy_packet(packet, bytes(packet)), True
    if video.decoder.name == "hevc":
        yield from _drop_messages(packet, _length_prefix_bytes(video))


def _has_foreign_side_data(packet: Packet[Stream]) -> bool:
    """Returns True if there is side data that PyAV's table lacks; its rows end before EXIF's."""
    try:
        return not all(data.data_type for data in packet.iter_sidedata())
    except LookupError:
        return True


def _drop_messages(packet: Packet[Stream], size: int) -> Iterator[tuple[Packet[Stream], bool]]:
    """Yields shortened packets to try, and whether each has all that decoding needs."""
    units = list(_split_units(bytes(packet), size))
    for kept, complete in ((*_SLICE_TYPES, *_PARAMETER_SET_TYPES), True), (_SLICE_TYPES, False):
        chosen = [unit for unit in units if len(unit) > 2 and unit[0] >> 1 in kept]
        if chosen and len(chosen) < len(units):
            is_empty = (len(unit).to_bytes(size, "big") if size else _START_CODE for unit in chosen)
            body = b"".join(start + unit for start, unit in zip(is_empty, chosen, strict=True))
            yield _copy_packet(packet, body), complete


def _length_prefix_bytes(video: OpenVideo) -> int:
    """Returns the size of units' length prefix (ISO/IEC 14496-15, 8.3.2); 0 for Annex B."""
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
