"""The interface that all stores share: one range request, one response.

`http.py` and `s3.py` implement it; `remote_file.py` and the fetcher know only this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from videoqa_worker.sources.checksums import Digest

__all__ = ["ByteRange", "EndedEarly", "RangeReader", "RangeRefused", "RangeResponse", "Version"]

ByteRange = tuple[int, int | None] | None
"""The requested range [start, end); an end of None: to the last byte; None: no range at all."""


class EndedEarly(Exception):
    """The connection broke amid the body."""


class RangeRefused(Exception):
    """The first range was answered with HTTP 416: request the whole file."""


@dataclass(frozen=True)
class Version:
    """A store's name for one state of its object; all responses must agree on it."""

    etag: str | None = None
    """The ETag as sent, with quotes and the W/ of a weak one."""
    modified: str | None = None
    """The Last-Modified header of HTTP."""
    version_id: str | None = None
    condition: str | None = None
    """The value for a conditional request, so that the store itself refuses another state."""

    @property
    def is_named(self) -> bool:
        """True if there is a name; without one, parts of two states could be mixed unnoticed."""
        return self.etag is not None or self.modified is not None

    def agrees_with(self, other: Version) -> bool:
        """Returns True if the other response is of the same state, as far as both tell.

        ETags are compared where both have one, else dates. A response without either is
        trusted only if its request carried a condition.
        """
        if self.etag is not None and other.etag is not None:
            return self.etag == other.etag
        if self.modified is not None and other.modified is not None:
            return self.modified == other.modified
        return self.condition is not None


@dataclass(frozen=True)
class RangeResponse:
    """The headers of a response; its body is still to be read."""

    start: int
    """Offset of the body's first byte in the file."""
    end: int | None
    """Offset behind the body's last byte; None if the response does not tell."""
    total_bytes: int | None
    """Size of the whole file; None if the response does not tell."""
    partial: bool
    """True for a range (206), False for the whole file."""
    continuable: bool
    """True if a later request may ask for the rest."""
    version: Version
    chunks: Iterator[bytes] = field(repr=False)
    """The body; raises EndedEarly where the connection breaks, and may also just end early."""
    whole_digest: Digest | None = None
    part_digest: Digest | None = None


class RangeReader(Protocol):
    """Reads ranges of one file; thread-safe.

    Each call sends one request, redirects aside, and counts it in the account.
    """

    def get(
        self, wanted: ByteRange, version: Version | None = None
    ) -> AbstractContextManager[RangeResponse]:
        """Sends a request; `version` is that of the first response, None for the first request.

        Raises:
            SourceError: of many kinds. InputChanged: the store refused the condition.
            RangeRefused: the first range was answered with 416. Stopped: the caller left.
        """
        ...

    def fetch_digest(self, version: Version) -> Digest | None:
        """Returns the whole file's digest where the store tells it on request only; else None."""
        ...

    def close(self) -> None: ...
