"""Parses an HTTP response's headers: its range, and the file's size, version and digests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

import h11._readers
import httpcore2

from videoqa.errors import SourceHttpError
from videoqa_worker.sources.checksums import read_part_digest, read_whole_digest
from videoqa_worker.sources.ranges.range_reader import EndedEarly, RangeResponse, Version

__all__ = [
    "MAX_FIELD_BYTES",
    "MAX_HEADER_BYTES",
    "make_header_error",
    "read_fields",
    "read_response",
]

MAX_FIELD_BYTES = 16_384
"""Longest header field that is read, with its repetitions: twice the longest URL of a request."""
MAX_HEADER_BYTES = 65_536
"""Longest header of a response. httpcore gives up on its own where 100 kB are not yet all of it."""
_READ_FIELDS = frozenset(
    ("accept-ranges", "content-digest", "content-encoding", "content-length", "content-md5",
     "content-range", "date", "digest", "etag", "last-modified", "location", "repr-digest",
     "x-goog-hash")
)  # fmt: skip
"""All others are left out, so that a long one of no concern, such as a cookie, refuses no video."""


def _make_parser_linear() -> None:
    """Makes the blanks in h11's patterns possessive, for all clients of this process that use it.

    As h11 0.16 writes them, 64 kB of blanks that a NUL ends, in a header, a trailer or a chunk's extension,
    hold the interpreter for 8 seconds: each blank may belong to either side of the value.
    """
    for name, pattern in vars(h11._readers).copy().items():
        if isinstance(pattern, re.Pattern):
            linear = pattern.pattern.replace(rb"[ \t]*", rb"[ \t]*+").replace(
                rb";.*", rb";[^\r\n]*+"
            )
            setattr(h11._readers, name, re.compile(linear))


_make_parser_linear()


def read_fields(response: httpcore2.Response, shown_url: str) -> Mapping[str, str]:
    """Returns the header fields of use; names in lower case, repeated fields joined (RFC 9110, 5.3).

    Raises:
        SourceHttpError: a field, or all of them together, are longer than a server has reason to send.
    """
    size_bytes = sum(len(name) + len(value) + 4 for name, value in response.headers)
    if size_bytes > MAX_HEADER_BYTES:
        raise make_header_error(shown_url)
    values: dict[str, list[str]] = {}
    for name, value in response.headers:
        key = name.decode("latin-1").lower()
        if key in _READ_FIELDS:
            values.setdefault(key, []).append(value.decode("latin-1"))
    fields = {key: ", ".join(texts) for key, texts in values.items()}
    for key, text in fields.items():
        if len(text) > MAX_FIELD_BYTES:
            raise SourceHttpError(
                f"{shown_url} sent {len(text)} bytes of the header field {key}, expected at most "
                f"{MAX_FIELD_BYTES}; correct the server, or use another URL"
            )
    return fields


def make_header_error(shown_url: str) -> SourceHttpError:
    """Makes the error for a header that is too long as a whole."""
    return SourceHttpError(
        f"{shown_url} sent a header of more than {MAX_HEADER_BYTES} bytes, expected less; correct "
        "the server, or use another URL"
    )


def read_response(response: httpcore2.Response, fields: Mapping[str, str]) -> RangeResponse:
    """Returns the response in the form that all stores share."""
    partial = response.status == 206
    length = fields.get("content-length", "")
    size_bytes = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    start, end, total_bytes = 0, size_bytes, size_bytes
    if partial:
        start, end, total_bytes = _parse_content_range(fields)
    return RangeResponse(
        start=start,
        end=end,
        total_bytes=total_bytes,
        partial=partial,
        continuable=partial or fields.get("accept-ranges", "").lower() == "bytes",
        version=_read_version(fields),
        chunks=_iter_chunks(response),
        whole_digest=read_whole_digest(fields, partial=partial),
        part_digest=read_part_digest(fields) if partial else None,
    )


def _parse_content_range(fields: Mapping[str, str]) -> tuple[int, int | None, int | None]:
    """Returns start, end and total of Content-Range; an end of None if it is missing or invalid."""
    text = fields.get("content-range", "").strip()
    match = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", text
    )  # 18 digits suffice for any file
    if match is None:
        return 0, None, None
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def _read_version(fields: Mapping[str, str]) -> Version:
    """Reads the version; its condition is a strong ETag, else a strong date (RFC 9110, 13.1.5).

    A date is strong if it lies a second before the response's own (8.8.2.2): a file can change
    twice within one second. Without a condition, ETags, dates and sizes are compared, and a file
    that was replaced by one of the same size in the same second goes unnoticed.
    """
    etag, modified = fields.get("etag"), fields.get("last-modified")
    condition = etag if etag and not etag.startswith("W/") else None
    if condition is None and modified is not None and _is_older(modified, fields.get("date")):
        condition = modified
    return Version(etag=etag, modified=modified, condition=condition)


def _is_older(modified: str, date: str | None) -> bool:
    try:
        apart = parsedate_to_datetime(date or "") - parsedate_to_datetime(modified)
    except (
        ValueError,
        TypeError,
        OverflowError,
    ):  # no valid date, or only one of them has a time zone
        return False
    return apart.total_seconds() >= 1


def _iter_chunks(response: httpcore2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_stream()
    except (httpcore2.RemoteProtocolError, httpcore2.ReadError) as error:
        raise EndedEarly from error
