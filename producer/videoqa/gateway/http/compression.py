"""Gzip of answers that come whole: JSON and text, never a stream or a file, whose caller waits for each piece."""

from __future__ import annotations

import asyncio
import gzip
import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Compression"]

LEAST_BYTES = 1000
LEAST_THREAD_BYTES = 100_000
"""Size from which a body is compressed in a thread: 1 MB takes about 10 ms."""
_TEXT = re.compile(
    r"application/([a-z0-9.-]+\+)?json\b|application/(javascript|x-subrip)\b|text/(?!event-stream)"
)
_GZIP = ("gzip", "x-gzip", "*")


def accepts_gzip(header: str) -> bool:
    """Tells if a caller's `Accept-Encoding` has gzip, with a weight that is not 0."""
    for one in header.split(","):
        coding, _, parameter = one.partition(";")
        name, _, weight = parameter.partition("=")
        is_refused = name.strip().lower() == "q" and not weight.strip().strip("0.")
        if coding.strip().lower() in _GZIP and not is_refused:
            return True
    return False


class Compression:
    """Compresses whole answers of callers that accept it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepts = accepts_gzip(",".join(Headers(scope=scope).getlist("accept-encoding")))
        await self._app(scope, receive, _Sender(send, accepts_gzip=accepts))


class _Sender:
    """Holds back the head of an answer of text until its first piece tells if that is all."""

    def __init__(self, send: Send, *, accepts_gzip: bool) -> None:
        self._send = send
        self._accepts_gzip = accepts_gzip
        self._head: dict[str, Any] | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _may_compress(message):
            MutableHeaders(scope=message).add_vary_header("Accept-Encoding")
            if self._accepts_gzip:
                self._head = dict(message)
                return
        head, self._head = self._head, None
        if head is not None:
            body = message.get("body", b"")
            if not message.get("more_body") and len(body) >= LEAST_BYTES:
                is_large = len(body) >= LEAST_THREAD_BYTES
                body = await asyncio.to_thread(_compress, body) if is_large else _compress(body)
                headers = MutableHeaders(raw=head["headers"])
                headers["content-encoding"] = "gzip"
                headers["content-length"] = str(len(body))
                head["headers"], message = headers.raw, {**message, "body": body}
            await self._send(head)
        await self._send(message)


def _may_compress(head: Message) -> bool:
    headers = Headers(raw=head["headers"])
    is_whole = head["status"] not in (204, 206, 304) and "content-encoding" not in headers
    return is_whole and _TEXT.match(headers.get("content-type", "")) is not None


def _compress(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=4, mtime=0)
