"""What the stores have in common: one request for some bytes, and one answer.

`http.py` and `s3.py` each have a Reader; `remote.py` knows only this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from videoqa_worker.sources.checksums import Digest

__all__ = ["ByteRange", "EndedEarly", "RangeReader", "RangeRefused", "RangeResponse", "Version"]

ByteRange = tuple[int, int | None] | None
"""[start, end) of the bytes asked for; an end of None: to the last; None: no range at all."""


class EndedEarly(Exception):
    """The connection broke while the body came."""


class RangeRefused(Exception):
    """HTTP 416 to the very first range: ask for the whole."""


@dataclass(frozen=True)
class Version:
    """How a store names one state of its object; two answers must agree on it."""

    etag: str | None = None
    """As sent, with quotes and a weak one's W/."""
    modified: str | None = None
    """HTTP's Last-Modified."""
    version_id: str | None = None
    condition: str | None = None
    """What may stand in a condition, so that the store itself refuses another state."""

    @property
    def is_named(self) -> bool:
        """Without a name, parts of two states could be glued together unnoticed."""
        return self.etag is not None or self.modified is not None

    def agrees_with(self, other: Version) -> bool:
        """Whether the other answer is of this state, as far as both say.

        By the ETag where both have one, else by the date. An answer that names nothing is
        trusted only if it was asked for under a condition.
        """
        if self.etag is not None and other.etag is not None:
            return self.etag == other.etag
        if self.modified is not None and other.modified is not None:
            return self.modified == other.modified
        return self.condition is not None


@dataclass(frozen=True)
class RangeResponse:
    """The beginning of a response; its body is still to come."""

    start: int
    """Of its first byte in the file."""
    end: int | None
    """[start, end), where the response says so."""
    total_bytes: int | None
    """Of the whole file, where the response says so."""
    partial: bool
    """It answers a range (206), else it is the whole file."""
    continuable: bool
    """A later request may ask for the rest."""
    version: Version
    chunks: Iterator[bytes] = field(repr=False)
    """Raises EndedEarly where the connection breaks; may also just end early."""
    whole_digest: Digest | None = None
    part_digest: Digest | None = None


class RangeReader(Protocol):
    """Thread-safe. Each call is one request, redirects aside; it is counted in the transfer."""

    def get(
        self, wanted: ByteRange, version: Version | None = None
    ) -> AbstractContextManager[RangeResponse]:
        """`version`: that of the first answer, or None for the first.

        Raises:
            SourceError: of many kinds. InputChanged: the store refused the condition.
            RangeRefused: the first range was answered with 416. Stopped: the caller left.
        """
        ...

    def fetch_digest(self, version: Version) -> Digest | None:
        """Of the whole file, where the store tells it only when asked. May be a request."""
        ...

    def close(self) -> None: ...
