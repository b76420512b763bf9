"""Finds an MP4's index by walking over its top-level boxes (ISO/IEC 14496-12, 4.2).

This is code of our own because FFmpeg finds the index only by reading up to it block by block, and
the box libraries parse whole trees; here eight bytes per box suffice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from struct import calcsize, iter_unpack

from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.sparse_file import SparseFile

__all__ = ["ends_before_index", "fetch_index", "find_broken_fragment", "has_pauses"]

_TAIL_BYTES = 32 << 20
"""A tail up to this size is fetched at once: behind the media data mostly the index follows."""
_HEADER_BYTES = 4096
_FIRST_PICTURES_BYTES = 256 << 10
"""Size to fetch for the first keyframe, which has 100 to 250 KB at 1080p."""
_MAX_BOXES = 10_000


@dataclass(frozen=True)
class _Box:
    name: bytes
    start: int
    body: int
    """Offset of its contents: after 8 bytes, or 16."""
    end: int


def _iter_boxes(file: SparseFile, start: int = 0, end: int | None = None) -> Iterator[_Box]:
    """Yields the boxes of [start, end), by default of the file, while their sizes are valid."""
    size_bytes = file.size_bytes
    stop = size_bytes if end is None else min(end, size_bytes)
    with closing(FileCursor(file)) as cursor:
        for _ in range(_MAX_BOXES):
            if start + 8 > stop:
                return
            near_end = size_bytes - start <= _TAIL_BYTES
            if not file.present.covers(start, min(start + 16, size_bytes)):
                tail = (start, size_bytes if near_end else start + _HEADER_BYTES)
                file.ensure([tail, (0, _FIRST_PICTURES_BYTES)])
            cursor.seek(start)
            header = cursor.read(16)
            length, body = int.from_bytes(header[:4], "big"), start + 8
            if length == 1:
                length, body = int.from_bytes(header[8:16], "big"), start + 16
            box_end = stop if length == 0 else start + length
            if box_end < body:
                return
            yield _Box(header[4:8], start, body, box_end)
            start = box_end


def fetch_index(file: SparseFile) -> bool:
    """Fetches the index (moov) and the first pictures, which are needed to open the video.

    Returns False if there is no index, as in a broken upload, or if it does not list the pictures,
    as in a fragmented file.
    """
    first = file.size_bytes
    for box in _iter_boxes(file):
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
    for box in _iter_boxes(file):
        if box.name == b"moov":
            return box.end > file.size_bytes
        at = box.end
    return at + 8 > file.size_bytes


def find_broken_fragment(file: SparseFile) -> int | None:
    """Returns the offset of a fragment whose header (moof) is cut off, as in a broken recording."""
    for box in _iter_boxes(file):
        if box.name == b"moof" and box.end > file.size_bytes:
            return box.start
    return None


def has_pauses(file: SparseFile) -> bool:
    """Returns True if an edit list has a pause after its first entry.

    FFmpeg applies such entries at the beginning only, and later repeats the beginning instead
    (ISO/IEC 14496-12, 8.6.6: a media time of -1 is an empty edit).
    """
    path = (b"moov", b"trak", b"edts", b"elst")
    return any(-1 in _read_edit_times(file, box)[1:] for box in _find_boxes(file, path))


def _find_boxes(
    file: SparseFile, path: tuple[bytes, ...], start: int = 0, end: int | None = None
) -> Iterator[_Box]:
    """Yields the boxes at this path of box names."""
    for box in _iter_boxes(file, start, end):
        if box.name == path[0]:
            if len(path) == 1:
                yield box
            else:
                yield from _find_boxes(file, path[1:], box.body, box.end)


def _read_edit_times(file: SparseFile, box: _Box) -> list[int]:
    """Reads the media time of each entry of an edit list."""
    with closing(FileCursor(file)) as cursor:
        cursor.seek(box.body)
        content = cursor.read(min(box.end - box.body, _HEADER_BYTES))
    entry = ">qqi" if content[:1] == b"\x01" else ">iii"
    whole = len(content[8:]) // calcsize(entry) * calcsize(entry)
    return [time for _, time, _ in iter_unpack(entry, content[8 : 8 + whole])]
