"""The result of opening a source: a file on this machine, filled as bytes are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from videoqa_worker.frames import Span, Spans, SparseFile

__all__ = ["FileCopy", "LocalCopy", "name_file_state", "read_file_state"]


class LocalCopy(SparseFile, Protocol):
    """A SparseFile with its source's version and the costs of fetching it.

    Valid until the `with` statement that yielded it ends; one thread at a time may use it.
    """

    @property
    def path(self) -> Path: ...

    @property
    def etag(self) -> str | None:
        """The store's ETag of these bytes, without quotes; for file:// size and mtime."""
        ...

    @property
    def version_id(self) -> str | None:
        """The object's version, from S3 buckets that keep versions; else None."""
        ...

    @property
    def state(self) -> str | None:
        """A name for these bytes beside the ETag: HTTP's Last-Modified, or a digest of the bytes."""
        ...

    @property
    def is_reread(self) -> bool:
        """True if bytes of another version than the first were taken, which agree with all that was read before."""
        ...

    @property
    def is_intact(self) -> bool:
        """True if all bytes that were read so far are of the version that the ETag names."""
        ...

    @property
    def checksum(self) -> str | None:
        """The algorithm by which the whole file was verified; None if it was not."""
        ...

    @property
    def fetched_bytes(self) -> int:
        """Bytes fetched over the network so far, repeated ranges included; 0 for file://."""
        ...

    @property
    def requests(self) -> int:
        """Requests sent so far, redirects included."""
        ...

    @property
    def waited_s(self) -> float:
        """Time spent in `ensure` so far."""
        ...


@dataclass(frozen=True)
class FileCopy:
    """A LocalCopy that is the local file itself: complete, nothing fetched."""

    path: Path
    size_bytes: int
    etag: str
    version_id: None = None
    state: None = None
    is_reread: bool = False
    checksum: None = None
    fetched_bytes: int = 0
    requests: int = 0
    waited_s: float = 0.0

    def open_file(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def is_intact(self) -> bool:
        return read_file_state(self.path) == self.etag

    @property
    def present(self) -> Spans:
        return Spans([(0, self.size_bytes)])

    def ensure(self, spans: Sequence[Span]) -> None:
        """Returns at once: no byte is missing."""


def name_file_state(status: os.stat_result) -> str:
    """Returns a name for the bytes of a local file: its size and the time of its last change."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def read_file_state(path: Path) -> str | None:
    """Returns the name of a file's bytes now; None: it is gone."""
    try:
        return name_file_state(path.stat())
    except OSError:
        return None
