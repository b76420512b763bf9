"""Tells animations from still pictures by their structure: GIF, PNG, WebP, AVIF and Motion JPEG.

Walks over the blocks of a complete file and decodes nothing; a file that breaks off has the pictures that
it has begun.
"""

from __future__ import annotations

import os

from videoqa_worker.frames.container.boxes import iter_boxes
from videoqa_worker.frames.container.sniff import AVIF, identify
from videoqa_worker.frames.sparse_file import SparseFile

__all__ = ["is_animated"]

_BLOCK_BYTES = 64 << 10
_MAX_CHUNKS = 10_000
_START_OF_SCAN = 0xDA
_MAX_OFFSET = (1 << 63) - 1


def is_animated(file: SparseFile) -> bool:
    """Returns True if the file is of an image format and has at least two pictures to show in turn."""
    file_type = identify(file)
    if not file_type.may_move:
        return False
    if file_type == AVIF:
        return any(box.name == b"moov" for box in iter_boxes(file))
    with _Bytes(file) as content:
        if content.read(0, 3) == b"GIF":
            return _count_gif(content) > 1
        if content.read(0, 4) == b"RIFF":
            return _count_webp(content) > 1
        if content.read(0, 4) == b"\x89PNG":
            return _count_png(content) > 1
        return _is_jpeg_stream(content)


class _Bytes:
    """The bytes of a file, read in blocks; a context manager."""

    def __init__(self, file: SparseFile) -> None:
        self._descriptor = file.open_file()
        self._at, self._block = 0, b""

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, at: int, count: int) -> bytes:
        """Returns up to so many bytes at this offset; fewer at the end of the file."""
        begin = at - self._at
        if begin < 0 or begin + count > len(self._block):
            self._at, self._block = at, self.read_block(at)
            begin = 0
        return self._block[begin : begin + count]

    def read_block(self, at: int) -> bytes:
        """Returns up to 64 KB at this offset."""
        return os.pread(self._descriptor, _BLOCK_BYTES, min(at, _MAX_OFFSET))


def _count_gif(content: _Bytes) -> int:
    """Counts the pictures of a GIF, up to two (GIF89a, sections 18 to 27)."""
    head = content.read(0, 13)
    if len(head) < 13:
        return 0
    at, count = 13 + _colour_table_bytes(head[10]), 0
    for _ in range(_MAX_CHUNKS):
        mark = content.read(at, 11)
        if mark[:1] == b"\x2c" and len(mark) >= 10:
            count += 1
            if count == 2:
                break
            at = _skip_sub_blocks(content, at + 11 + _colour_table_bytes(mark[9]))
        elif mark[:1] == b"\x21":
            at = _skip_sub_blocks(content, at + 2)
        else:
            break
    return count


def _colour_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_sub_blocks(content: _Bytes, at: int) -> int:
    while block := content.read_block(at):
        n = 0
        while n < len(block) and block[n]:
            n += 1 + block[n]
        at += n
        if n < len(block):
            return at + 1
    return at


def _count_png(content: _Bytes) -> int:
    """Returns the number of pictures that a PNG's animation control chunk names; it stands before the pixels."""
    at = 8
    for _ in range(_MAX_CHUNKS):
        header = content.read(at, 12)
        if len(header) < 12 or header[4:8] == b"IDAT":
            break
        if header[4:8] == b"acTL":
            return int.from_bytes(header[8:12], "big")
        at += 12 + int.from_bytes(header[:4], "big")
    return 1


def _count_webp(content: _Bytes) -> int:
    """Counts the ANMF chunks of a WebP, up to two."""
    head = content.read(12, 9)
    if head[:4] != b"VP8X" or len(head) < 9 or not head[8] & 2:
        return 1
    at, count = 12, 0
    for _ in range(_MAX_CHUNKS):
        header = content.read(at, 8)
        if len(header) < 8 or count == 2:
            break
        count += header[:4] == b"ANMF"
        size = int.from_bytes(header[4:8], "little")
        at += 8 + size + size % 2
    return count


def _is_jpeg_stream(content: _Bytes) -> bool:
    """Returns True for JPEGs one behind the other, as cameras send them (Motion JPEG).

    Phones put several into one file as well, and list them in a segment "MPF" of the first (CIPA DC-007).
    """
    at = 2
    for _ in range(_MAX_CHUNKS):
        header = content.read(at, 8)
        if len(header) < 8 or header[0] != 0xFF or header[4:8] == b"MPF\0":
            return False
        if header[1] == _START_OF_SCAN:
            break
        at += 2 + int.from_bytes(header[2:4], "big")
    while block := content.read_block(at):
        end = block.find(b"\xff\xd9")
        if end >= 0:
            return content.read(at + end + 2, 3) == b"\xff\xd8\xff"
        at += max(1, len(block) - 1)
    return False
