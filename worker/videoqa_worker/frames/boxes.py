"""Where an MP4 keeps its index: a walk over its top-level boxes (ISO/IEC 14496-12, 4.2).

Own code, because FFmpeg finds the index only by reading up to it block by block, and the
box libraries parse whole trees; this needs eight bytes a box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from videoqa_worker.frames.cursor import Cursor
from videoqa_worker.media import Media

__all__ = ["bring_index", "ends_before_index"]

_TAIL_BYTES = 32 << 20
"""What follows the media data is mostly the index: up to here it is fetched at once."""
_HEADER_BYTES = 4096
_FIRST_PICTURES_BYTES = 256 << 10
"""The first keyframe of 1080p has 100 to 250 KB."""
_MAX_BOXES = 10_000


@dataclass(frozen=True)
class _Box:
    name: bytes
    start: int
    end: int


def _boxes(media: Media) -> Iterator[_Box]:
    size_bytes = media.size_bytes
    with Cursor(media) as cursor:
        at = 0
        for _ in range(_MAX_BOXES):
            if at + 8 > size_bytes:
                return
            near_end = size_bytes - at <= _TAIL_BYTES
            if not media.present.covers(at, min(at + 16, size_bytes)):
                tail = (at, size_bytes if near_end else at + _HEADER_BYTES)
                media.ensure([tail, (0, _FIRST_PICTURES_BYTES)])
            cursor.seek(at)
            header = cursor.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            end = size_bytes if length == 0 else at + length
            if end < at + 8:
                return
            yield _Box(header[4:8], at, end)
            at = end


def bring_index(media: Media) -> bool:
    """Fetches the index (moov), and the first pictures, which opening a video looks at.

    False if there is no index, as in a broken upload, or it does not list the pictures, as in a
    fragmented file.
    """
    first = media.size_bytes
    for box in _boxes(media):
        if box.name == b"mdat":
            first = min(first, box.start)
        if box.name == b"moov":
            end = min(box.end, media.size_bytes)
            first = min(first, end)
            far = first >= _HEADER_BYTES
            pictures = (first, first + _FIRST_PICTURES_BYTES) if far else (0, _FIRST_PICTURES_BYTES)
            media.ensure([(box.start, end), pictures])
            return True
        if box.name == b"moof":
            return False
    return False


def ends_before_index(media: Media) -> bool:
    """True for an MP4 that ends before its moov box does, as an upload that broke off."""
    at = 0
    for box in _boxes(media):
        if box.name == b"moov":
            return box.end > media.size_bytes
        at = box.end
    return at + 8 > media.size_bytes
