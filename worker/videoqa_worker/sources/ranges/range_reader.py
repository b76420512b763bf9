"""The interface that all stores share: one range request, one response.

`http.py` and `s3.py` implement it; `remote_file.py` and the fetcher know only this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, Self

from videoqa.errors import SamplingError
from videoqa_worker.sources.checksums import Digest

__all__ = [
    "ByteRange",
    "EndedEarly",
    "RangeReader",
    "RangeRefused",
    "RangeResponse",
    "Version",
    "parse_content_range",
]

ByteRange = tuple[int, int | None] | None
"""The requested range [start, end); an end of None: to the last byte; None: no range at all."""


_TAG = re.compile(r'(?:W/)?"[\w.:;+=/~-]{0,100}"', re.ASCII)
_DATE = re.compile(r"[\w:, +-]{1,40}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
"""18 digits suffice for any file."""


def parse_content_range(field: str) -> tuple[int, int | None, int | None]:
    """Returns start, end and total of a Content-Range; an end of None if it is missing or invalid."""
    match = _CONTENT_RANGE.fullmatch(field.strip())
    if match is None:
        return 0, None, None
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


class EndedEarly(Exception):
    """The connection broke amid the body."""


class RangeRefused(Exception):
    """The first range was answered with HTTP 416, or with a part of compressed bytes: request the whole file."""


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

    def describe(self) -> str:
        """Names the version in a message; leaves out what may be a request's own text, sent back."""
        if self.etag is not None:
            return f"ETag {self.etag}" if _TAG.fullmatch(self.etag) else "another form of ETag"
        if self.modified is not None:
            return (
                f"date {self.modified}"
                if _DATE.fullmatch(self.modified)
                else "another form of date"
            )
        return "no ETag and no date"

    def agrees_with(self, other: Version) -> bool:
        """Returns True if the other response is of the same state, as far as both tell.

        ETags are compared where one has one, since every answer to a range repeats it (RFC 9110, 15.3.7);
        else dates. A response without either is trusted only if its request carried a condition.
        """
        if self.etag is not None or other.etag is not None:
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
    is_coded: bool = False
    """True if `chunks` decompresses the body, so that sizes and digests of the store are not of its bytes."""

    @classmethod
    def of_coded(cls, version: Version, chunks: Iterator[bytes]) -> Self:
        """Makes the response of a compressed body: the whole file, of a size that only its end tells."""
        return cls(0, None, None, False, False, version, chunks, is_coded=True)


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

    def find_page(self, head: bytes) -> SamplingError | None:
        """Returns the error for a file that begins so and is no media, if its address tells more than its bytes."""
        ...

    def close(self) -> None: ...
