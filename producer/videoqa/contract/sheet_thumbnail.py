"""The thumbnail in a sheet: one small picture in the head of its JPEG, which a list reads without the rest."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["SHEET_HEAD_BYTES", "add_thumbnail", "find_thumbnail"]

SHEET_HEAD_BYTES = 32_768
"""Bytes from a sheet's beginning in which its thumbnail lies whole."""
MOST_THUMBNAIL_BYTES = 30_000
_JPEG = b"\xff\xd8"
_COMMENT, _OURS, _PICTURE = 0xFE, 0xE9, 0xDA
"""Markers of JPEG: a comment, an application's own segment, and the beginning of the picture."""
_NAME = b"videoqa thumbnail\0"


def add_thumbnail(sheet: bytes, thumbnail: bytes) -> bytes:
    """Returns the JPEG of a sheet with a thumbnail behind its comment; without one if that is too long."""
    if len(thumbnail) > MOST_THUMBNAIL_BYTES:
        return sheet
    end = next((end for marker, _, end in _walk(sheet) if marker == _COMMENT), len(_JPEG))
    payload = _NAME + thumbnail
    segment = bytes((0xFF, _OURS)) + (len(payload) + 2).to_bytes(2, "big") + payload
    return sheet[:end] + segment + sheet[end:]


def find_thumbnail(head: bytes) -> bytes | None:
    """Returns the JPEG of the thumbnail in the head of a sheet; None: it has none."""
    for marker, start, end in _walk(head):
        if marker == _OURS and head.startswith(_NAME, start) and end <= len(head):
            found = head[start + len(_NAME) : end]
            return found if found.startswith(_JPEG) else None
    return None


def _walk(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of each segment of a JPEG before its picture."""
    at = len(_JPEG) if data.startswith(_JPEG) else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _PICTURE:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at + 4, at + 2 + length
        at += 2 + max(2, length)
