"""Answers of bytes: all of them, or the one range that a caller asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Response
from starlette.types import Receive, Scope, Send

from videoqa.gateway.http.etags import has_tag
from videoqa.gateway.http.event_stream import wait_until_gone
from videoqa.gateway.http.problems import HttpError

__all__ = ["AskedBytes", "answer_bytes", "parse_range"]

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class AskedBytes:
    """The headers by which a caller asks for bytes."""

    range: str | None
    if_range: str | None
    if_none_match: str | None


async def answer_bytes(
    asked: AskedBytes,
    tag: str,
    size: int,
    read: Callable[[int, int], AsyncIterator[bytes]],
    headers: Mapping[str, str],
    media_type: str = "application/octet-stream",
) -> Response:
    """Returns the bytes that a caller asks for, or 304 if it has them.

    Arguments:
        tag: ETag of the bytes.
        read: yields the bytes from a start to an end.

    Raises:
        HttpError: no byte is in the range (416); also what `read` raises before its first byte.
    """
    headers = {**headers, "etag": tag, "accept-ranges": "bytes"}
    if has_tag(tag, asked.if_none_match):
        return Response(status_code=304, headers=headers)
    span = parse_range(asked.range, size) if asked.if_range in (None, tag) else None
    start, end = span or (0, size)
    if span is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    headers["content-length"] = str(end - start)
    data = read(start, end)
    first = await anext(data, b"")  # read before the answer begins, so that an error has a status
    return _ByteStream(first, data, 206 if span else 200, headers, media_type)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Returns the range [start, end) that a header asks for; None for all bytes, also where it is none that we read.

    Raises:
        HttpError: no byte of the file is in it.
    """
    match = _RANGE.fullmatch(header.strip()) if header is not None and len(header) < 100 else None
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        if match[2] and int(match[2]) < start:
            return None
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= end:
        raise HttpError(
            416,
            "range_not_satisfiable",
            f"got a range outside of the file's {size:,} bytes",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, end


class _ByteStream(Response):
    """A response whose bytes are read while they are sent; ends when its caller hangs up."""

    def __init__(
        self,
        first: bytes,
        rest: AsyncIterator[bytes],
        status: int,
        headers: Mapping[str, str],
        media_type: str = "application/octet-stream",
    ) -> None:
        super().__init__(None, status, headers, media_type)
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the bytes."""
        leaving = asyncio.ensure_future(wait_until_gone(receive))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            data = self._first
            while data and not leaving.done():
                await send({"type": "http.response.body", "body": data, "more_body": True})
                data = await anext(self._rest, b"")
            if not leaving.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            await asyncio.shield(cast(Any, self._rest).aclose())
