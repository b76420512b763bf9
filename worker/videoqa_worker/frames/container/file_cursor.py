"""A sparse file as a Python file object: reading a hole fetches its bytes first.

It suits demuxers, which jump to an index and then read on: a jump costs one block, reading on costs
blocks of doubling size. A read stops at the end of the present bytes, so that a demuxer's own buffer
never asks for bytes that nobody needs.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_left
from collections.abc import Mapping

from videoqa_worker.frames.sparse_file import SparseFile

__all__ = ["FileCursor", "is_complete"]

_BLOCK_BYTES = 128 << 10
_MAX_BLOCK_BYTES = 4 << 20


def is_complete(file: SparseFile) -> bool:
    """Returns True if every byte is present."""
    return file.present.covers(0, file.size_bytes)


class FileCursor(io.RawIOBase):
    """A readable file object over a SparseFile; to be closed.

    Each has a position and a file descriptor of its own.
    """

    def __init__(
        self,
        file: SparseFile,
        size_bytes: int | None = None,
        replaced: Mapping[int, bytes] | None = None,
    ) -> None:
        """
        Arguments:
            size_bytes: where reading ends; None: at the end of the file.
            replaced: bytes to read in place of the file's, by their offset; no two overlap.
        """
        super().__init__()
        self._file = file
        self._size_bytes = file.size_bytes if size_bytes is None else size_bytes
        self._descriptor = file.open_file()
        self._replaced = replaced or {}
        self._replaced_at = sorted(self._replaced)
        self.failure: Exception | None = None
        """The latest error of a read: it is of the source or the disk, and none of what the file has."""
        self._at = 0
        self._block = _BLOCK_BYTES
        self._fetched_to = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Returns at least one byte, unless at the end; often fewer than `size`."""
        try:
            return self._read(size)
        except Exception as error:
            self.failure = error
            raise

    def _read(self, size: int) -> bytes:
        if self._at >= self._size_bytes:
            return b""
        end = self._file.present.end_of(self._at)
        if end == self._at:
            end = self._fetch_block()
        end = min(end, self._size_bytes)
        count = end - self._at if size < 0 else min(size, end - self._at)
        data = os.pread(self._descriptor, count, self._at)
        if self._replaced_at:
            data = self._replace(data)
        self._at += len(data)
        return data

    def _replace(self, data: bytes) -> bytes:
        """Returns the bytes of the current position with those put in that are to be replaced."""
        shown, end = bytearray(data), self._at + len(data)
        first = max(0, bisect_left(self._replaced_at, self._at) - 1)
        for at in self._replaced_at[first : bisect_left(self._replaced_at, end)]:
            new = self._replaced[at]
            begin, stop = max(at, self._at), min(at + len(new), end)
            if begin < stop:
                shown[begin - self._at : stop - self._at] = new[begin - at : stop - at]
        return bytes(shown)

    def read_fully(self, size: int) -> bytes:
        """Returns so many bytes, fewer only at the end."""
        parts = bytearray()
        while len(parts) < size and (part := self.read(size - len(parts))):
            parts += part
        return bytes(parts)

    def _fetch_block(self) -> int:
        onward = self._at == self._fetched_to
        self._block = min(self._block * 2, _MAX_BLOCK_BYTES) if onward else _BLOCK_BYTES
        end = min(self._size_bytes, self._at + self._block)
        self._file.ensure([(self._at, end)])
        self._fetched_to = end
        return self._file.present.end_of(self._at)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
