"""What every source hands on: a file on this machine, whose bytes come as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from videoqa_worker.frames import Span, Spans, SparseFile

__all__ = ["FileCopy", "LocalCopy"]


class LocalCopy(SparseFile, Protocol):
    """Valid until the `with` that gave it ends. For one thread at a time."""

    @property
    def etag(self) -> str | None:
        """The source's own name for these bytes, without quotes; file://: size and mtime."""
        ...

    @property
    def version_id(self) -> str | None:
        """S3 only, where the bucket keeps versions."""
        ...

    @property
    def state(self) -> str | None:
        """What else tells these bytes from others of the source: HTTP's Last-Modified, or a digest
        of them where the store names nothing."""
        ...

    @property
    def checksum(self) -> str | None:
        """The algorithm by which the whole file was verified; None: it was not."""
        ...

    @property
    def fetched_bytes(self) -> int:
        """Over the network so far, repeated ranges included; 0 for file://."""
        ...

    @property
    def requests(self) -> int:
        """Over the network so far, redirects included."""
        ...

    @property
    def waited_s(self) -> float:
        """Spent in `ensure` so far."""
        ...


@dataclass(frozen=True)
class FileCopy:
    """The file itself: all there, nothing fetched."""

    path: Path
    size_bytes: int
    etag: str
    version_id: None = None
    state: None = None
    checksum: None = None
    fetched_bytes: int = 0
    requests: int = 0
    waited_s: float = 0.0

    @property
    def present(self) -> Spans:
        return Spans([(0, self.size_bytes)])

    def ensure(self, spans: Sequence[Span]) -> None:
        """Nothing is missing."""
