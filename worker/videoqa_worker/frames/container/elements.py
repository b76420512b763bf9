"""Reads the shape of the pictures of Matroska's tracks from their header (RFC 9559, 5.1.4.1.28).

This is code of our own because PyAV does not pass on the cropping that FFmpeg reads there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from videoqa_worker.frames.container.boxes import DOLBY_VISION_BOXES
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.sparse_file import SparseFile

__all__ = ["TrackVideo", "has_encrypted_pictures", "read_track_videos"]

_SEGMENT, _CLUSTER, _TRACKS, _TRACK = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_VIDEO, _PROJECTION, _POSE_ROLL = 0xE0, 0x7670, 0x7675
_WIDTH, _HEIGHT = 0xB0, 0xBA
_CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)
"""The elements PixelCropLeft, PixelCropTop, PixelCropRight and PixelCropBottom."""
_ENCODINGS, _ENCODING, _ENCRYPTION = 0x6D80, 0x6240, 0x5035
_BLOCK_ADDITION_MAPPING, _ADDITION_TYPE, _ADDITION_DATA = 0x41E4, 0x41E7, 0x41ED
_MAX_ELEMENTS = 2000
"""Limit on the elements read: a track has some 40."""
_MAX_TRACKS_BYTES = 1 << 20
"""Limit on the headers of all tracks: each has a few hundred bytes."""


@dataclass(frozen=True)
class TrackVideo:
    """The shape of a track's stored pictures."""

    width: int
    height: int
    crops: tuple[int, ...]
    """Pixels to cut off at the left, the top, the right and the bottom."""
    is_turned: bool
    """True if pictures are to be turned by 90 or 270 degrees."""
    dolby_vision: bytes
    """The configuration of Dolby Vision; empty if there is none."""


def read_track_videos(file: SparseFile) -> list[TrackVideo]:
    """Reads the shapes of all tracks that have pictures, in their order."""
    left = iter(range(_MAX_ELEMENTS))
    tracks = _read_tracks(file, left)
    found: list[TrackVideo] = []
    for track, start, end in _iter_elements(tracks, 0, len(tracks), left):
        if track != _TRACK:
            continue
        elements = list(_iter_elements(tracks, start, end, left))
        mappings = [(a, b) for name, a, b in elements if name == _BLOCK_ADDITION_MAPPING]
        dolby_vision = b"".join(_read_dolby_vision(tracks, a, b, left) for a, b in mappings)
        found += [
            _read_video(tracks, a, b, left, dolby_vision)
            for name, a, b in elements
            if name == _VIDEO
        ]
    return found


def has_encrypted_pictures(file: SparseFile) -> bool:
    """Returns True if a track that has pictures is encrypted."""
    left = iter(range(_MAX_ELEMENTS))
    tracks = _read_tracks(file, left)
    for track, start, end in _iter_elements(tracks, 0, len(tracks), left):
        if track != _TRACK:
            continue
        found = list(_iter_elements(tracks, start, end, left))
        has_pictures = any(name == _VIDEO for name, _, _ in found)
        encodings = [(a, b) for name, a, b in found if name == _ENCODINGS]
        if has_pictures and any(_has_encryption(tracks, a, b, left) for a, b in encodings):
            return True
    return False


def _has_encryption(content: bytes, start: int, end: int, left: Iterator[int]) -> bool:
    return any(
        name == _ENCRYPTION
        for encoding, a, b in _iter_elements(content, start, end, left)
        if encoding == _ENCODING
        for name, _, _ in _iter_elements(content, a, b, left)
    )


def _read_dolby_vision(content: bytes, start: int, end: int, left: Iterator[int]) -> bytes:
    """Returns the configuration of Dolby Vision of a mapping of additional blocks; empty for another's."""
    fields = {name: (a, b) for name, a, b in _iter_elements(content, start, end, left)}
    kind = _read_number(content, fields.get(_ADDITION_TYPE)).to_bytes(8, "big")[4:]
    first, last = fields.get(_ADDITION_DATA, (0, 0))
    return content[first:last] if kind in DOLBY_VISION_BOXES else b""


def _read_video(
    content: bytes, start: int, end: int, left: Iterator[int], dolby_vision: bytes
) -> TrackVideo:
    video = {name: (a, b) for name, a, b in _iter_elements(content, start, end, left)}
    width, height, *crops = (
        _read_number(content, video.get(name)) for name in (_WIDTH, _HEIGHT, *_CROPS)
    )
    is_turned = _PROJECTION in video and _is_turned(content, *video[_PROJECTION], left)
    return TrackVideo(width, height, tuple(crops), is_turned, dolby_vision)


def _read_tracks(file: SparseFile, left: Iterator[int]) -> bytes:
    """Reads the contents of the segment's Tracks element; empty if it does not come before the clusters."""
    with closing(FileCursor(file)) as cursor:
        at, stop = 0, file.size_bytes
        for _ in left:
            cursor.seek(at)
            head = _read_head(cursor.read(12), 0)
            if head is None:
                break
            name, size, body = head
            if name == _TRACKS:
                cursor.seek(at + body)
                return cursor.read_fully(min(size or 0, _MAX_TRACKS_BYTES))
            if name == _CLUSTER or at + body >= stop:
                break
            at += body if name == _SEGMENT else body + (stop if size is None else size)
    return b""


def _iter_elements(
    content: bytes, at: int, end: int, left: Iterator[int]
) -> Iterator[tuple[int, int, int]]:
    """Yields (name, start, end) of the contents of each element in [at, end)."""
    for _ in left:
        head = _read_head(content, at) if at < end else None
        if head is None:
            return
        name, size, start = head
        stop = end if size is None else min(end, start + size)
        if start > end:
            return
        yield name, start, stop
        at = stop


def _read_head(content: bytes, at: int) -> tuple[int, int | None, int] | None:
    """Reads an element's name, size (None: unknown) and the offset of its contents (RFC 8794, 4 to 6)."""
    lengths = [0, 0]
    for part, most in enumerate((4, 8)):
        first = content[at + lengths[0] : at + lengths[0] + 1]
        lengths[part] = 9 - first[0].bit_length() if first else 9
        if lengths[part] > most:
            return None
    size_at, body = at + lengths[0], at + sum(lengths)
    if body > len(content):
        return None
    largest = (1 << 7 * lengths[1]) - 1
    size = int.from_bytes(content[size_at:body], "big") & largest
    return int.from_bytes(content[at:size_at], "big"), None if size == largest else size, body


def _read_number(content: bytes, span: tuple[int, int] | None) -> int:
    """Reads an unsigned integer of at most 8 bytes; 0 where the element is missing or longer."""
    start, end = span or (0, 0)
    return int.from_bytes(content[start:end], "big") if end - start <= 8 else 0


def _is_turned(content: bytes, start: int, end: int, left: Iterator[int]) -> bool:
    """Returns True if a projection's roll is a quarter turn, to the left or to the right."""
    for name, a, b in _iter_elements(content, start, end, left):
        if name == _POSE_ROLL and b - a in (4, 8):
            (degrees,) = struct.unpack(">f" if b - a == 4 else ">d", content[a:b])
            return degrees in (90.0, -90.0, 270.0, -270.0)
    return False
