"""Byte edits that turn a plain clip into an odd one: what muxers write, and PyAV's cannot.

Each takes a file's bytes and gives the new ones. Boxes are those of ISO/IEC 14496-12, elements
those of RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = [
    "cut",
    "with_cover",
    "with_edits",
    "without_cues",
    "without_fragment_index",
    "without_length",
]

_CUES = b"\x1c\x53\xbb\x6b"
_VOID = b"\xec"


def cut(content: bytes, share: float) -> bytes:
    """The first part, as of an upload that broke off."""
    return content[: int(len(content) * share)]


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body


def with_box(content: bytes, path: Sequence[bytes], body: bytes) -> bytes:
    """Gives the box at this path a new body; the boxes around it are lengthened to hold it.

    Only for boxes behind the media data: nothing before them moves.
    """
    at, ends = 0, [len(content)]
    starts: list[int] = []
    for name in path:
        at = content.index(name, at, ends[-1]) - 4
        starts.append(at)
        ends.append(at + int.from_bytes(content[at : at + 4], "big"))
        at += 8
    grown = len(body) - (ends[-1] - at)
    edited = bytearray(content)
    edited[at : ends[-1]] = body
    for start in starts:
        length = int.from_bytes(edited[start : start + 4], "big")
        edited[start : start + 4] = struct.pack(">I", length + grown)
    return bytes(edited)


def with_edits(content: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """Another edit list: (length in the movie's ticks, first media tick or -1 for a pause) each."""
    rows = b"".join(struct.pack(">IiHH", length, start, 1, 0) for length, start in edits)
    body = struct.pack(">II", 0, len(edits)) + rows
    return with_box(content, (b"moov", b"trak", b"edts", b"elst"), body)


def with_cover(content: bytes, png: bytes) -> bytes:
    """Puts an iTunes cover into the moov box, which stands last."""
    at = content.index(b"moov") - 4
    data = box(b"data", struct.pack(">II", 14, 0) + png)
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    meta = box(b"meta", bytes(4) + handler + box(b"ilst", box(b"covr", data)))
    return content[:at] + box(b"moov", content[at + 8 :] + box(b"udta", meta))


def without_fragment_index(content: bytes) -> bytes:
    """A fragmented MP4 without the table of fragments at its end."""
    return content[: content.index(b"mfra") - 4]


def without_length(content: bytes) -> bytes:
    """An MP4 of which all headers say that it lasts 0 s; its one picture stays."""
    edited = bytearray(content)
    for name, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"stts", 16)):
        place = edited.find(name)
        if place >= 0:
            edited[place + at : place + at + 4] = bytes(4)
    return bytes(edited)


def without_cues(content: bytes) -> bytes:
    """A Matroska file whose index of keyframes is blanked out; it must stand last."""
    at = content.rindex(_CUES)
    rest = len(content) - at - 9
    return content[:at] + _VOID + struct.pack(">Q", 1 << 56 | rest) + bytes(rest)
