"""Parses an HTTP response's headers: its range, and the file's size, version and digests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

import httpcore2

from videoqa_worker.sources.checksums import read_part_digest, read_whole_digest
from videoqa_worker.sources.ranges.range_reader import EndedEarly, RangeResponse, Version

__all__ = ["read_fields", "read_response"]


def read_fields(response: httpcore2.Response) -> Mapping[str, str]:
    """Returns the header fields; names in lower case, repeated fields joined (RFC 9110, 5.3)."""
    fields: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


def read_response(response: httpcore2.Response, fields: Mapping[str, str]) -> RangeResponse:
    """Returns the response in the form that all stores share."""
    partial = response.status == 206
    length = fields.get("content-length", "")
    size_bytes = int(length) if length.isdigit() else None
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
        r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", text
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
