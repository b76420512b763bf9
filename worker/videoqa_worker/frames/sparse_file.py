"""The sparse file of one input, of which only some byte ranges may be present yet.

Sources fill the file, and decoding reads it. This interface lies between them: the reader asks for
all spans that it needs in one call, and never reads a hole as if it were data. Knows neither
networks nor containers.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["CompleteFile", "Span", "Spans", "SparseFile"]

Span = tuple[int, int]
"""A byte range [start, end) of the file."""


class SparseFile(Protocol):
    """A file of the input's full length, with holes where bytes are not fetched yet."""

    def open_file(self) -> int:
        """Opens the file for reading; returns a descriptor, which the caller closes.

        Its position may be shared with others: read it with `os.pread`.

        Raises:
            OSError.
        """
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def present(self) -> Spans:
        """The spans that are present; only `ensure` adds to them."""
        ...

    def ensure(self, spans: Sequence[Span]) -> None:
        """Fetches what is missing of these spans, in parallel; returns when they are present.

        May fetch more than the spans, which are cut at the file's end.

        Raises:
            SourceError: one of its kinds. Whatever the caller's `check` raises.
        """
        ...


class Spans:
    """A set of byte offsets, stored as sorted spans that neither touch nor overlap."""

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    def __iter__(self) -> Iterator[Span]:
        return iter(zip(self._starts, self._ends, strict=True))

    def add(self, start: int, end: int) -> None:
        """Adds the bytes [start, end)."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def end_of(self, at: int) -> int:
        """Returns the first offset from `at` on that is missing, which may be `at` itself."""
        n = bisect_right(self._starts, at) - 1
        return max(at, self._ends[n]) if n >= 0 else at

    def missing(self, start: int, end: int) -> list[Span]:
        """Returns the spans of [start, end) that are missing, ascending."""
        gaps: list[Span] = []
        while start < end:
            here = self.end_of(start)
            if here > start:
                start = here
                continue
            n = bisect_right(self._starts, start)
            stop = min(end, self._starts[n]) if n < len(self._starts) else end
            gaps.append((start, stop))
            start = stop
        return gaps

    def covers(self, start: int, end: int) -> bool:
        """Returns True if all bytes of [start, end) are present."""
        return self.end_of(start) >= end

    @property
    def total_bytes(self) -> int:
        return sum(end - start for start, end in self)


@dataclass(frozen=True)
class CompleteFile:
    """A SparseFile without holes: a file that is complete on this machine."""

    path: Path

    def open_file(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def present(self) -> Spans:
        return Spans([(0, self.size_bytes)])

    def ensure(self, spans: Sequence[Span]) -> None:
        """Returns at once: no byte is missing."""
