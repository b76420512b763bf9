"""Walks over the boxes of a file (ISO/IEC 14496-12, 4.2): finds an MP4's index, and what it says of its pictures.

This is code of our own because FFmpeg finds the index only by reading up to it block by block, and
the box libraries parse whole trees; here eight bytes per box suffice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from struct import calcsize, iter_unpack, unpack

from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.sparse_file import SparseFile

__all__ = [
    "DOLBY_VISION_BOXES",
    "Box",
    "SampleEntry",
    "ends_before_index",
    "fetch_index",
    "find_broken_fragment",
    "has_alpha_track",
    "has_pauses",
    "has_protected_pictures",
    "iter_boxes",
    "read_sample_entry",
]

_TAIL_BYTES = 32 << 20
"""A tail up to this size is fetched at once: behind the media data mostly the index follows."""
_HEADER_BYTES = 4096
_FIRST_PICTURES_BYTES = 256 << 10
"""Size to fetch for the first keyframe, which has 100 to 250 KB at 1080p."""
_MAX_BOXES = 10_000
_MAX_INDEX_BOXES = 1000
"""Limit on the boxes of one search in the index: each takes some 10 us, and most tracks need five."""
_TRACK_PATH = (b"moov", b"trak")
_DESCRIPTION_PATH = (b"mdia", b"minf", b"stbl", b"stsd")
_PROTECTED_ENTRIES = (b"encv", b"drmi")
_MAX_ENTRIES = 16
DOLBY_VISION_BOXES = (b"dvcC", b"dvvC", b"dvwC")
"""Names of the boxes of Dolby Vision's configuration, by its profile: up to 7, up to 10, and beyond."""
_ENTRY_FIELDS_BYTES = 78
"""Size of a visual sample entry's fields, after which its boxes begin (12.1.3)."""


@dataclass(frozen=True)
class Box:
    """A box of a file."""

    name: bytes
    start: int
    body: int
    """Offset of its contents: after 8 bytes, or 16."""
    end: int


def iter_boxes(
    file: SparseFile, start: int = 0, end: int | None = None, left: Iterator[int] | None = None
) -> Iterator[Box]:
    """Yields the boxes of [start, end), by default of the file, while their sizes are valid.

    Headers that lie close together are read at once.

    `left` gives a number for each box that may still be read.
    """
    size_bytes = file.size_bytes
    stop = size_bytes if end is None else min(end, size_bytes)
    block, block_at = b"", 0
    with closing(FileCursor(file)) as cursor:
        for _ in left or iter(range(_MAX_BOXES)):
            if start + 8 > stop:
                return
            header = block[start - block_at : start - block_at + 16]
            if len(header) < 16:
                near_end = size_bytes - start <= _TAIL_BYTES
                if not file.present.covers(start, min(start + 16, size_bytes)):
                    tail = (start, size_bytes if near_end else start + _HEADER_BYTES)
                    file.ensure([tail, (0, _FIRST_PICTURES_BYTES)])
                cursor.seek(start)
                block, block_at = cursor.read(_HEADER_BYTES), start
                header = block[:16]
            length, body = int.from_bytes(header[:4], "big"), start + 8
            if length == 1:
                length, body = int.from_bytes(header[8:16], "big"), start + 16
            box_end = stop if length == 0 else start + length
            if box_end < body:
                return
            yield Box(header[4:8], start, body, box_end)
            start = box_end


def fetch_index(file: SparseFile) -> bool:
    """Fetches the index (moov) and the first pictures, which are needed to open the video.

    Returns False if there is no index, as in a broken upload, or if it does not list the pictures,
    as in a fragmented file.
    """
    first = file.size_bytes
    for box in iter_boxes(file):
        if box.name == b"mdat":
            first = min(first, box.start)
        if box.name == b"moov":
            end = min(box.end, file.size_bytes)
            first = min(first, end)
            far = first >= _HEADER_BYTES
            pictures = (first, first + _FIRST_PICTURES_BYTES) if far else (0, _FIRST_PICTURES_BYTES)
            file.ensure([(box.start, end), pictures])
            return True
        if box.name == b"moof":
            return False
    return False


def ends_before_index(file: SparseFile) -> bool:
    """Returns True for an MP4 that ends before its moov box does, like an incomplete upload."""
    at = 0
    for box in iter_boxes(file):
        if box.name == b"moov":
            return box.end > file.size_bytes
        at = box.end
    return at + 8 > file.size_bytes


def find_broken_fragment(file: SparseFile) -> int | None:
    """Returns the offset of a fragment whose header (moof) is cut off, as in a broken recording."""
    for box in iter_boxes(file):
        if box.name == b"moof" and box.end > file.size_bytes:
            return box.start
    return None


def has_pauses(file: SparseFile) -> bool:
    """Returns True if an edit list has a pause after its first entry.

    FFmpeg applies such entries at the beginning only, and later repeats the beginning instead
    (ISO/IEC 14496-12, 8.6.6: a media time of -1 is an empty edit).
    """
    path = (*_TRACK_PATH, b"edts", b"elst")
    return any(-1 in _read_edit_times(file, box)[1:] for box in _find_boxes(file, path))


def has_alpha_track(file: SparseFile) -> bool:
    """Returns True if a track belongs to another one as its alpha (ISO/IEC 23008-12, 7.5.3)."""
    return any(True for _ in _find_boxes(file, (*_TRACK_PATH, b"tref", b"auxl")))


def has_protected_pictures(file: SparseFile) -> bool:
    """Returns True if a track's samples are encrypted pictures: of the entry "encv", or Apple's "drmi"."""
    left = iter(range(_MAX_INDEX_BOXES))
    return any(
        entry.name in _PROTECTED_ENTRIES
        for table in _find_boxes(file, (*_TRACK_PATH, *_DESCRIPTION_PATH), left=left)
        for entry in islice(iter_boxes(file, table.body + 8, table.end, left), _MAX_ENTRIES)
    )


def _find_boxes(
    file: SparseFile,
    path: tuple[bytes, ...],
    within: Box | None = None,
    left: Iterator[int] | None = None,
) -> Iterator[Box]:
    """Yields the boxes at this path of box names, none of which ends after the one that it is in."""
    left = left or iter(range(_MAX_INDEX_BOXES))
    start, end = (0, file.size_bytes) if within is None else (within.body, within.end)
    for box in iter_boxes(file, start, end, left):
        if box.name == path[0]:
            found = replace(box, end=min(box.end, end))
            if len(path) == 1:
                yield found
            else:
                yield from _find_boxes(file, path[1:], found, left)


def _read_body(file: SparseFile, box: Box, at: int = 0) -> bytes:
    """Reads a box's contents from `at` on, at most 4 KiB."""
    with closing(FileCursor(file)) as cursor:
        cursor.seek(box.body + at)
        return cursor.read(max(0, min(box.end - box.body - at, _HEADER_BYTES)))


def _read_edit_times(file: SparseFile, box: Box) -> list[int]:
    """Reads the media time of each entry of an edit list."""
    content = _read_body(file, box)
    entry = ">qqi" if content[:1] == b"\x01" else ">iii"
    whole = len(content[8:]) // calcsize(entry) * calcsize(entry)
    return [time for _, time, _ in iter_unpack(entry, content[8 : 8 + whole])]


@dataclass(frozen=True)
class SampleEntry:
    """The shape of a video track's pictures, as its header and first sample entry describe it."""

    width: int
    """Pixels of the stored picture."""
    height: int
    track_size: tuple[int, int]
    """Width and height of the track, in units of 1/65536 pixel, before its matrix is applied."""
    is_turned: bool
    """True if the track's matrix turns pictures by 90 or 270 degrees."""
    clean_aperture: tuple[int, ...] | None
    """Numerators and denominators of its width, height, and horizontal and vertical offset."""
    has_pixel_aspect: bool
    name: bytes
    """The entry's four characters, which tell the codec."""
    dolby_vision: bytes
    """The configuration of Dolby Vision; empty if there is none."""


def read_sample_entry(file: SparseFile, track_id: int) -> SampleEntry | None:
    """Reads the first sample entry of the video track with this number; None if it has none."""
    left = iter(range(_MAX_INDEX_BOXES))
    for track in _find_boxes(file, _TRACK_PATH, left=left):
        for header in islice(_find_boxes(file, (b"tkhd",), track, left), 1):
            fields = _read_body(file, header)
            number_at, matrix_at = (20, 52) if fields[:1] == b"\x01" else (12, 40)
            if len(fields) < matrix_at + 44:
                continue
            if int.from_bytes(fields[number_at : number_at + 4], "big") != track_id:
                continue
            a, b, _, c, d, *_ = unpack(">9i", fields[matrix_at : matrix_at + 36])
            size = unpack(">II", fields[matrix_at + 36 : matrix_at + 44])
            entry = _find_sample_entry(file, track, left)
            if entry is not None:
                return _describe_entry(file, entry, size, a == d == 0 != b * c, left)
    return None


def _find_sample_entry(file: SparseFile, track: Box, left: Iterator[int]) -> Box | None:
    for table in islice(_find_boxes(file, _DESCRIPTION_PATH, track, left), 1):
        for entry in islice(iter_boxes(file, table.body + 8, table.end, left), 1):
            return replace(entry, end=min(entry.end, table.end))
    return None


def _describe_entry(
    file: SparseFile,
    entry: Box,
    track_size: tuple[int, int],
    is_turned: bool,
    left: Iterator[int],
) -> SampleEntry | None:
    fields = _read_body(file, entry)
    if len(fields) < _ENTRY_FIELDS_BYTES:
        return None
    width, height = unpack(">HH", fields[24:28])
    aperture, has_pixel_aspect, dolby_vision = None, False, b""
    for box in iter_boxes(file, entry.body + _ENTRY_FIELDS_BYTES, entry.end, left):
        if box.name == b"clap" and len(content := _read_body(file, box)) >= 32:
            aperture = unpack(">8i", content[:32])
        has_pixel_aspect |= box.name == b"pasp"
        if box.name in DOLBY_VISION_BOXES:
            dolby_vision = _read_body(file, box)
    return SampleEntry(
        width, height, track_size, is_turned, aperture, has_pixel_aspect, entry.name, dolby_vision
    )
