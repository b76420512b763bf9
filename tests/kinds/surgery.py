"""Byte edits that turn a plain clip into an odd one, as other muxers than PyAV's write it.

Each takes a file's bytes and returns the new ones. Boxes are those of ISO/IEC 14496-12, elements
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
    """Returns the file's beginning, like an upload that broke off."""
    return content[: int(len(content) * share)]


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body


def with_box(content: bytes, path: Sequence[bytes], body: bytes) -> bytes:
    """Replaces the body of the box at this path, and enlarges the boxes around it.

    Only for boxes behind the media data, so that nothing before them moves.
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
    """Replaces the edit list: (length in the movie's ticks, first media tick or -1 for a pause)."""
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
    """Removes the table of fragments at a fragmented MP4's end."""
    return content[: content.index(b"mfra") - 4]


def without_length(content: bytes) -> bytes:
    """Sets the duration in all headers of an MP4 of one picture to 0 s."""
    edited = bytearray(content)
    for name, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"stts", 16)):
        place = edited.find(name)
        if place >= 0:
            edited[place + at : place + at + 4] = bytes(4)
    return bytes(edited)


def without_cues(content: bytes) -> bytes:
    """Blanks out the cues of a Matroska file, which must stand last."""
    at = content.rindex(_CUES)
    rest = len(content) - at - 9
    return content[:at] + _VOID + struct.pack(">Q", 1 << 56 | rest) + bytes(rest)
