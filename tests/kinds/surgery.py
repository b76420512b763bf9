"""Byte edits that turn a plain clip into an odd one, as other muxers than PyAV's write it.

Each takes a file's bytes and returns the new ones. Boxes are those of ISO/IEC 14496-12, elements
those of RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = [
    "box",
    "clean_aperture",
    "cut",
    "dolby_vision",
    "element",
    "pixel_aspect",
    "with_child",
    "with_cover",
    "with_dolby_vision",
    "with_edits",
    "with_entry_boxes",
    "with_track_size",
    "with_video_elements",
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


def with_child(content: bytes, path: Sequence[bytes], child: bytes) -> bytes:
    """Appends a box to the first one at this path, which must stand behind the media data.

    Sample entries and the table of them are of the path as any other box.
    """
    at, end = 0, len(content)
    edited = bytearray(content)
    for name in path:
        at = content.index(name, at, end) - 4
        end = at + int.from_bytes(content[at : at + 4], "big")
        edited[at : at + 4] = struct.pack(">I", end - at + len(child))
        at += 8
    edited[end:end] = child
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


def with_entry_boxes(content: bytes, *boxes: bytes, drop: bytes = b"") -> bytes:
    """Appends boxes to the sample entry of an MP4 whose index stands last; drops its box of this name."""
    path = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    at = content.index(b"stsd") + 4
    body = content[at : content.index(b"stts") - 4]
    entry = body[16:] if not drop else _without_box(body[16:], drop)
    entry += b"".join(boxes)
    return with_box(
        content, path, body[:8] + struct.pack(">I", len(entry) + 8) + body[12:16] + entry
    )


def _without_box(content: bytes, name: bytes) -> bytes:
    at = content.find(name) - 4
    if at < 0:
        return content
    return content[:at] + content[at + int.from_bytes(content[at : at + 4], "big") :]


def clean_aperture(*numbers: int) -> bytes:
    """Returns the box `clap` with these numerators and denominators (ISO/IEC 14496-12, 12.1.4)."""
    return box(b"clap", struct.pack(">8i", *numbers))


def pixel_aspect(wide: int, high: int) -> bytes:
    return box(b"pasp", struct.pack(">II", wide, high))


def dolby_vision(profile: int, compatibility: int) -> bytes:
    """Returns the configuration of a Dolby Vision stream of one layer with metadata, of level 1."""
    bits = profile << 9 | 1 << 3 | 0b101
    return struct.pack(">BBHB19x", 1, 0, bits, compatibility << 4)


def with_dolby_vision(content: bytes, profile: int, compatibility: int) -> bytes:
    """Says that an MP4 in HEVC whose index stands last is Dolby Vision."""
    name = b"dvcC" if profile <= 7 else b"dvvC"
    content = with_entry_boxes(content, box(name, dolby_vision(profile, compatibility)))
    return content if compatibility else content.replace(b"hev1", b"dvhe").replace(b"hvc1", b"dvh1")


def with_track_size(content: bytes, width: int, height: int) -> bytes:
    """Sets width and height of the track's header."""
    at = content.index(b"tkhd") + 80
    return content[:at] + struct.pack(">II", width << 16, height << 16) + content[at + 8 :]


def element(name: int, *values: int) -> bytes:
    """Returns an element of EBML with an unsigned integer of two bytes."""
    body = b"".join(value.to_bytes(2, "big") for value in values)
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + bytes([0x80 | len(body)]) + body


def with_video_elements(content: bytes, *elements: bytes) -> bytes:
    """Appends elements to the Video element of a Matroska file's first track, at the cost of the void before it."""
    extra = b"".join(elements)
    edited = bytearray(content)
    void = edited.index(_VOID + b"\x01")
    void_end = void + 9 + _resize(edited, void + 1, -len(extra))
    tracks = edited.index(b"\x16\x54\xae\x6b", void_end)
    _resize(edited, tracks + 4, len(extra))
    entry = edited.index(b"\xae\x01", tracks)
    _resize(edited, entry + 1, len(extra))
    video = _find_video(edited, entry + 9)
    end = video + 2 + _resize(edited, video + 1, len(extra))
    edited[end:end] = extra
    del edited[void_end - len(extra) : void_end]
    return bytes(edited)


def _find_video(content: bytearray, at: int) -> int:
    """Finds the Video element, which begins with PixelWidth, behind a size of one byte."""
    while content[at] != 0xE0 or content[at + 2] != 0xB0:
        at = content.index(b"\xe0", at + 1)
    return at


def _resize(content: bytearray, at: int, grown: int) -> int:
    """Adds to the size of an element of EBML, and returns the old one."""
    length = 9 - content[at].bit_length()
    marked = int.from_bytes(content[at : at + length], "big")
    content[at : at + length] = (marked + grown).to_bytes(length, "big")
    return marked & (1 << 7 * length) - 1
