"""Finds a container's header fields and units, so that damage can be aimed at them.

Reads just enough of each format to find sizes, timestamps and tables in a sound file. A field
is a few bytes with one meaning; a unit is what a demuxer reads in one go: a packet, tag, page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Field", "fields", "fix_ogg_checksums", "units"]


@dataclass(frozen=True)
class Field:
    """`size` bytes at `at`, unsigned, of the kind `kind`."""

    at: int
    size: int
    kind: str
    little: bool = False


Span = tuple[int, int]


def fields(suffix: str, data: bytes) -> list[Field]:
    return [f for f in _FIELDS[suffix](data) if f.at + f.size <= len(data)]


def units(suffix: str, data: bytes) -> list[Span]:
    """Returns the units as (start, end), ascending."""
    return [span for span in _UNITS[suffix](data) if span[0] < span[1] <= len(data)]


def _words(start: int, end: int, kind: str, size: int = 4, little: bool = False) -> Iterator[Field]:
    for at in range(start, end - size + 1, size):
        yield Field(at, size, kind, little)


# ISO/IEC 14496-12: boxes

_PARENTS = set(b"moov trak mdia minf stbl edts dinf mvex moof traf udta".split())


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, name) of each box and of the boxes within."""
    while at + 8 <= end:
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8:
            return
        stop = min(end, at + size)  # a file may be damaged twice, and sizes lie then
        yield at, stop, name
        if name in _PARENTS:
            yield from _boxes(data, at + 8, stop)
        at = stop


def _mp4_fields(data: bytes) -> Iterator[Field]:
    for start, end, name in _boxes(data, 0, len(data)):
        yield Field(start, 4, "box size")
        yield Field(start + 4, 4, "box name")
        if name not in _PARENTS | {b"mdat", b"free"}:
            yield from _words(start + 8, end, name.decode("latin-1"))


def _mp4_units(data: bytes) -> Iterator[Span]:
    return ((start, end) for start, end, _ in _boxes(data, 0, len(data)))


# RFC 8794: EBML

_MASTERS = "18538067 1F43B675 1654AE6B 1549A966 1C53BB6B 114D9B74 AE BB B7 4DBB A0 E0"
_MASTER_IDS = {bytes.fromhex(name) for name in _MASTERS.split()}
_BLOCKS = (b"\xa3", b"\xa1")


def _length(first: int) -> int:
    return 9 - first.bit_length()


def _elements(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, bytes]]:
    """(start, start of the size, start of the content, id)."""
    while at < end and data[at]:
        size_at = at + _length(data[at])
        if size_at >= end or not data[size_at]:
            return
        body_at = size_at + _length(data[size_at])
        raw = data[size_at:body_at]
        size = int.from_bytes(raw, "big") & ((1 << 7 * len(raw)) - 1)
        name = data[at:size_at]
        yield at, size_at, body_at, name
        stop = min(end, body_at + size)
        if name in _MASTER_IDS:
            yield from _elements(data, body_at, stop)
        at = stop


def _ebml_fields(data: bytes) -> Iterator[Field]:
    found = [*_elements(data, 0, len(data)), (len(data), 0, 0, b"")]
    for (start, size_at, body_at, name), after in pairwise(found):
        yield Field(size_at, body_at - size_at, "element size")
        yield Field(start, size_at - start, "element id")
        if name in _BLOCKS:
            yield Field(body_at + 1, 2, "block time")
            yield Field(body_at + 3, 1, "block flags")
        elif 0 < after[0] - body_at <= 8:
            yield Field(body_at, after[0] - body_at, name.hex())


def _ebml_units(data: bytes) -> Iterator[Span]:
    found = [*_elements(data, 0, len(data)), (len(data), 0, 0, b"")]
    return ((this[0], after[0]) for this, after in pairwise(found))


# RIFF


def _chunks(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    while at + 8 <= end:
        size, name = int.from_bytes(data[at + 4 : at + 8], "little"), data[at : at + 4]
        stop = min(end, at + 8 + size + size % 2)
        yield at, stop, name
        if name in (b"RIFF", b"LIST"):
            yield from _chunks(data, at + 12, stop)
        at = stop


def _avi_fields(data: bytes) -> Iterator[Field]:
    for start, end, name in _chunks(data, 0, len(data)):
        yield Field(start + 4, 4, "chunk size", little=True)
        if name in (b"avih", b"strh", b"strf", b"idx1"):
            yield from _words(start + 8, end, name.decode(), little=True)


def _avi_units(data: bytes) -> Iterator[Span]:
    return ((s, e) for s, e, name in _chunks(data, 0, len(data)) if name[2:3] == b"d")


# ISO/IEC 13818-1: transport and program streams


def _ts_fields(data: bytes) -> Iterator[Field]:
    for at in range(0, len(data) - 187, 188):
        yield from _words(at, at + 4, "packet header", 1)
        body = at + 4
        if data[at + 3] & 0x20:
            yield from _words(body, body + 8, "adaptation", 1)
            body += 1 + data[body]
        if data[at + 1] & 0x40 and data[body : body + 3] == b"\0\0\1":
            yield from _words(body + 3, body + 9, "pes header", 1)
            yield from _words(body + 9, body + 19, "pes time", 1)
        elif data[at + 1] & 0x40:
            yield from _words(body, body + 24, "tables", 1)


def _ts_units(data: bytes) -> Iterator[Span]:
    return ((at, at + 188) for at in range(0, len(data) - 187, 188))


def _ps_starts(data: bytes) -> list[int]:
    """Finds the starts of packs, system headers and packets of streams."""
    starts, at = [], data.find(b"\0\0\1")
    while at >= 0:
        if data[at + 3 : at + 4] >= b"\xba":
            starts.append(at)
        at = data.find(b"\0\0\1", at + 3)
    return starts


def _ps_fields(data: bytes) -> Iterator[Field]:
    for at in _ps_starts(data):
        yield Field(at + 3, 1, "start code")
        if data[at + 3] == 0xBA:
            yield from _words(at + 4, at + 10, "clock", 1)
        else:
            yield Field(at + 4, 2, "packet size")
            yield from _words(at + 6, at + 19, "pes time", 1)


def _ps_units(data: bytes) -> Iterator[Span]:
    starts = _ps_starts(data)
    return zip(starts, [*starts[1:], len(data)], strict=True)


# FLV tags, Ogg pages (RFC 3533), GIF blocks, ASF objects


def _flv_units(data: bytes) -> Iterator[Span]:
    at = 13
    while at + 11 <= len(data):
        end = min(len(data), at + 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4)
        yield at, end
        at = end


def _flv_fields(data: bytes) -> Iterator[Field]:
    yield from _words(0, 13, "file header", 1)
    for at, end in _flv_units(data):
        yield Field(at, 1, "tag type")
        yield Field(at + 1, 3, "tag size")
        yield Field(at + 4, 3, "tag time")
        yield Field(at + 7, 1, "tag time high")
        yield Field(at + 11, 1, "picture kind")
        yield Field(at + 12, 1, "packet kind")
        yield Field(at + 13, 3, "composition time")
        yield Field(end - 4, 4, "size of the tag before")
        if data[at] == 18:  # onMetaData: AMF numbers are a 0 and a double
            yield from _words(at + 11, end - 4, "metadata", 8)


def _ogg_units(data: bytes) -> Iterator[Span]:
    at = data.find(b"OggS")
    while at >= 0:
        after = data.find(b"OggS", at + 4)
        yield at, after if after >= 0 else len(data)
        at = after


def _ogg_fields(data: bytes) -> Iterator[Field]:
    for at, end in _ogg_units(data):
        yield Field(at + 4, 1, "page version")
        yield Field(at + 5, 1, "page flags")
        yield Field(at + 6, 8, "granule", little=True)
        yield Field(at + 14, 4, "serial", little=True)
        yield Field(at + 18, 4, "page number", little=True)
        yield Field(at + 22, 4, "checksum", little=True)
        lacing = at + 27 + data[at + 26] if at + 26 < end else end
        yield from _words(at + 26, lacing, "lacing", 1)
        yield from _words(lacing, min(end, lacing + 26), "page start", 2)


def _gif_units(data: bytes) -> Iterator[Span]:
    """Yields each picture, from its graphic control extension on."""
    starts, at = [], data.find(b"\x21\xf9\x04")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\x21\xf9\x04", at + 8)
    return zip(starts, [*starts[1:], len(data)], strict=True)


def _gif_fields(data: bytes) -> Iterator[Field]:
    yield from _words(6, 13, "screen", 1)
    for at, _ in _gif_units(data):
        yield Field(at + 3, 1, "disposal")
        yield Field(at + 4, 2, "delay", little=True)
        yield from _words(at + 8, at + 18, "picture", 1)
        yield from _words(at + 9, at + 17, "rectangle", 2, little=True)


_ASF_DATA = bytes.fromhex("3626B2758E66CF11A6D900AA0062CE6C")
_ASF_PACKET_BYTES = 3200
"""Packet size that FFmpeg writes."""


def _asf_objects(data: bytes) -> Iterator[Span]:
    at = 0
    while at + 24 <= len(data):
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        if size < 24:
            return
        yield at, min(len(data), at + size)
        at = at + size if at else 30  # the first object, the header, holds others


def _asf_units(data: bytes) -> Iterator[Span]:
    for start, end in _asf_objects(data):
        if data[start : start + 16] != _ASF_DATA:
            yield start, end
            continue
        for at in range(start + 50, end, _ASF_PACKET_BYTES):
            yield at, at + _ASF_PACKET_BYTES


def _asf_fields(data: bytes) -> Iterator[Field]:
    for start, end in _asf_objects(data):
        yield Field(start + 16, 8, "object size", little=True)
        if data[start : start + 16] != _ASF_DATA and start:
            yield from _words(start + 24, end, "header", little=True)
    for start, end in _asf_units(data):
        if end - start == _ASF_PACKET_BYTES:
            yield from _words(start, start + 40, "packet header", 1)


def fix_ogg_checksums(data: bytes) -> bytes:
    """Corrects the checksums: FFmpeg drops pages with wrong ones, and so no edit would show."""
    fixed = bytearray(data)
    for start, end in _ogg_units(data):
        fixed[start + 22 : start + 26] = bytes(4)
        crc = 0
        for byte in fixed[start:end]:
            crc = (crc << 8 & 0xFFFFFFFF) ^ _OGG_TABLE[crc >> 24 ^ byte]
        fixed[start + 22 : start + 26] = crc.to_bytes(4, "little")
    return bytes(fixed)


def _ogg_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc >> 31 else 0)
        table.append(crc & 0xFFFFFFFF)
    return table


_OGG_TABLE = _ogg_table()
_FIELDS: dict[str, Callable[[bytes], Iterator[Field]]] = {
    ".mp4": _mp4_fields,
    ".mov": _mp4_fields,
    ".mkv": _ebml_fields,
    ".webm": _ebml_fields,
    ".avi": _avi_fields,
    ".ts": _ts_fields,
    ".mpg": _ps_fields,
    ".flv": _flv_fields,
    ".ogv": _ogg_fields,
    ".gif": _gif_fields,
    ".wmv": _asf_fields,
}
_UNITS: dict[str, Callable[[bytes], Iterator[Span]]] = {
    ".mp4": _mp4_units,
    ".mov": _mp4_units,
    ".mkv": _ebml_units,
    ".webm": _ebml_units,
    ".avi": _avi_units,
    ".ts": _ts_units,
    ".mpg": _ps_units,
    ".flv": _flv_units,
    ".ogv": _ogg_units,
    ".gif": _gif_units,
    ".wmv": _asf_units,
}
