"""Parses an HTTP response's headers: its range, and the file's size, version and digests."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime

import httpcore2

from videoqa.errors import SourceHttpError
from videoqa.net.h11_patterns import make_parser_linear
from videoqa_worker.sources.checksums import read_part_digest, read_whole_digest
from videoqa_worker.sources.content_coding import BodyCut, find_codings, inflate, make_cut_error
from videoqa_worker.sources.ranges.account import FetchAccount
from videoqa_worker.sources.ranges.range_reader import (
    EndedEarly,
    RangeRefused,
    RangeResponse,
    Version,
    parse_content_range,
)
from videoqa_worker.sources.store_errors import MAX_BODY_BYTES

__all__ = [
    "MAX_FIELD_BYTES",
    "MAX_HEADER_BYTES",
    "make_header_error",
    "read_error_body",
    "read_fields",
    "read_response",
]

MAX_FIELD_BYTES = 16_384
"""Longest header field that is read, with its repetitions: twice the longest URL of a request."""
MAX_HEADER_BYTES = 65_536
"""Longest header of a response. httpcore gives up on its own where 100 kB are not yet all of it."""
_ERROR_BODY_S = 5.0
"""Time after which no more of an error's body is waited for: it may drip, and has no least rate."""
_READ_FIELDS = frozenset(
    ("accept-ranges", "content-digest", "content-encoding", "content-length", "content-md5",
     "content-range", "date", "digest", "etag", "last-modified", "location", "repr-digest",
     "content-type", "transfer-encoding", "x-amz-bucket-region",
     "x-goog-hash", "x-goog-stored-content-encoding", "x-ms-error-code")
)  # fmt: skip
"""All others are left out, so that a long one of no concern, such as a cookie, refuses no video."""


make_parser_linear()


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


def read_error_body(response: httpcore2.Response) -> bytes:
    """Returns the beginning of an error's body; nothing of one that does not come."""
    body = b""
    until_s = time.monotonic() + _ERROR_BODY_S
    with suppress(httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        for chunk in response.iter_stream():
            body += chunk
            if len(body) >= MAX_BODY_BYTES or time.monotonic() >= until_s:
                break
    return body[:MAX_BODY_BYTES]


def make_header_error(shown_url: str) -> SourceHttpError:
    """Makes the error for a header that is too long as a whole."""
    return SourceHttpError(
        f"{shown_url} sent a header of more than {MAX_HEADER_BYTES} bytes, expected less; correct "
        "the server, or use another URL"
    )


def read_response(
    response: httpcore2.Response, fields: Mapping[str, str], account: FetchAccount
) -> RangeResponse:
    """Returns the response in the form that all stores share."""
    codings = find_codings(fields.get("content-encoding", ""))
    if codings:
        return _read_coded(response, fields, codings, account)
    partial = response.status == 206
    length = fields.get("content-length", "")
    size_bytes = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    start, end, total_bytes = 0, size_bytes, size_bytes
    if partial:
        start, end, total_bytes = parse_content_range(fields.get("content-range", ""))
    return RangeResponse(
        start=start,
        end=end,
        total_bytes=total_bytes,
        partial=partial,
        continuable=partial or fields.get("accept-ranges", "").lower() == "bytes",
        version=_read_version(fields),
        chunks=account.meter(_iter_chunks(response)),
        whole_digest=None if _is_transcoded(fields) else read_whole_digest(fields, partial=partial),
        part_digest=read_part_digest(fields) if partial else None,
    )


def _read_coded(
    response: httpcore2.Response,
    fields: Mapping[str, str],
    codings: tuple[str, ...],
    account: FetchAccount,
) -> RangeResponse:
    """Returns a compressed response; neither its size nor a range of it says anything about the plain bytes."""
    if response.status == 206:
        raise RangeRefused
    ends_by_itself = "content-length" in fields or "transfer-encoding" in fields

    def iter_plain() -> Iterator[bytes]:
        try:
            yield from inflate(
                account.meter(_iter_chunks(response)),
                codings,
                account.shown_url,
                account.count_made,
            )
        except BodyCut as error:
            if not ends_by_itself:
                raise EndedEarly from error
            raise make_cut_error(account.shown_url) from error

    return RangeResponse.of_coded(_read_version(fields), iter_plain())


def _is_transcoded(fields: Mapping[str, str]) -> bool:
    """Returns True if Google's store has decompressed the object, whose digests are still those of its gzip form."""
    return bool(find_codings(fields.get("x-goog-stored-content-encoding", "")))


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
