"""The bytes of one input, of which perhaps not all are on this machine yet.

Sources fill a file, decoding reads it; between them stands this interface, so that a reader
can ask for the spans that it needs, in one go, and never reads a hole as if it were data.
Knows neither networks nor containers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["CompleteFile", "Span", "Spans", "SparseFile"]

Span = tuple[int, int]
"""[start, end) in bytes from the file's beginning."""


class SparseFile(Protocol):
    """A file that is as long as the input from the start, with holes where nothing came yet."""

    @property
    def path(self) -> Path: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def present(self) -> Spans:
        """What is there. Grows by `ensure` alone."""
        ...

    def ensure(self, spans: Sequence[Span]) -> None:
        """Returns when these spans are in the file; what is missing is fetched in parallel.

        May bring more than was asked for. Spans are cut at the file's end.

        Raises:
            SourceError: one of its kinds; and whatever the caller's `check` raises.
        """
        ...


class Spans:
    """A set of bytes as sorted spans that neither touch nor overlap."""

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    def __iter__(self) -> Iterator[Span]:
        return iter(zip(self._starts, self._ends, strict=True))

    def add(self, start: int, end: int) -> None:
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
        """The first byte from `at` on that is missing; `at` itself if it is."""
        n = bisect_right(self._starts, at) - 1
        return max(at, self._ends[n]) if n >= 0 else at

    def missing(self, start: int, end: int) -> list[Span]:
        """The parts of [start, end) that are not in the set, ascending."""
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
        return self.end_of(start) >= end

    @property
    def total_bytes(self) -> int:
        return sum(end - start for start, end in self)


@dataclass(frozen=True)
class CompleteFile:
    """A file that is all there."""

    path: Path

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def present(self) -> Spans:
        return Spans([(0, self.size_bytes)])

    def ensure(self, spans: Sequence[Span]) -> None:
        """Nothing is missing."""
