"""Middleware of all routes, as plain ASGI: BaseHTTPMiddleware would hide a caller that hangs up.

Each response has `x-request-id`, the caller's own if it is a plain word, and is not cached by anybody; and the headers
that a dependency left in the request's state. A body is limited while it is read, whatever its Content-Length says, and
one that is refused is read on for a while: a caller that is still sending would see a reset connection in place of the
answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from contextlib import suppress
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videoqa.gateway.http.access_log import AccessLine
from videoqa.gateway.http.error_responses import make_error_response
from videoqa.gateway.http.problems import HttpError
from videoqa.telemetry import log_events
from videoqa.telemetry.log_context import request_context
from videoqa.telemetry.trace_context import TraceContext, caller_context

__all__ = ["Envelope", "find_request_id", "set_body_limit"]

log = logging.getLogger(__name__)

DRAINED_BYTES, DRAINED_S = 64_000_000, 5.0
"""Bounds of what is read of a body that is refused."""
GRACE_S, LEAST_BYTES_A_SECOND = 30.0, 10_000
"""A body takes at most this time, and a second more for each so many bytes that came."""
MOST_HEADERS, MOST_HEAD_BYTES = 1000, 64_000
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,128}")


def find_request_id(scope: Scope) -> str:
    """Returns the id of the request, by which its answer, its log lines and its errors are found."""
    return str(scope.get("state", {}).get("request_id", ""))


class BodyRefused(Exception):
    """Raised out of `receive`, so that whoever reads the body ends; the answer is its error."""

    def __init__(self, error: HttpError) -> None:
        super().__init__(error.message)
        self.error = error


class Envelope:
    """Adds the headers of every response, and limits every body; an upload sets a limit of its own."""

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _PLAIN.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        trace = TraceContext.parse_header(headers.get(b"traceparent", b"").decode("latin-1"))
        access = AccessLine(scope, send)
        with (
            request_context(request_id=request_id, trace_id=trace.trace_id if trace else None),
            caller_context(trace),
        ):
            try:
                await self._serve(scope, receive, access.send, request_id)
            finally:
                access.write()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        has_started = False
        limited = _Limited(receive, self._most_bytes)
        scope["state"]["body"] = limited

        async def send_all(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                if 400 <= message["status"] != 408 and limited.is_left(scope):
                    await _drain(receive)
                found = MutableHeaders(scope=message)
                found["x-request-id"] = request_id
                found["x-content-type-options"] = "nosniff"
                found.setdefault("cache-control", "no-store")
                for name, value in scope["state"].get("headers", {}).items():
                    found[name] = value
            await send(message)

        async def refuse(error: HttpError) -> None:
            response = make_error_response(error, scope, request_id=request_id)
            await response(scope, receive, send_all)

        if _measure_head(scope) > MOST_HEAD_BYTES or len(scope["headers"]) > MOST_HEADERS:
            await refuse(
                HttpError(
                    431,
                    "head_too_large",
                    f"expected a path and at most {MOST_HEADERS:,} headers of {MOST_HEAD_BYTES:,} bytes together; send "
                    "large values in the body",
                    headers={"connection": "close"},
                )
            )
            return
        try:
            await self._app(scope, limited, send_all)
        except BodyRefused as refused:
            if has_started:
                raise
            await refuse(refused.error)
        except Exception as error:
            # Here, since the app's handler of all errors is outside of this, and would answer without these headers.
            if has_started:
                raise
            log_events.REQUEST_FAILED.log(log, request=request_id, exc_info=error)
            await refuse(
                HttpError(
                    500,
                    "internal_error",
                    "the gateway met an unexpected error; its log has it under the request's id",
                )
            )


def _measure_head(scope: Scope) -> int:
    """Counts the bytes of a head. h11's own limit holds only for a head that comes in several pieces."""
    headers = sum(len(name) + len(value) for name, value in scope["headers"])
    return headers + len(scope.get("raw_path") or b"") + len(scope["query_string"])


async def _drain(receive: Receive) -> None:
    left = DRAINED_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAINED_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return


class _Limited:
    """Passes on a body until it is too large, or too slow: beyond GRACE_S it has a least rate. Raises BodyRefused."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive = receive
        self.most_bytes = most_bytes
        self.length = 0
        self._began_s: float | None = None
        self._has_begun = self._has_ended = False

    async def __call__(self) -> Message:
        self._has_begun = True
        message: dict[str, Any] = dict(
            await (self._receive() if self._has_ended else self._receive_in_time())
        )
        if message["type"] == "http.request":
            self.length += len(message.get("body", b""))
            self._has_ended = not message.get("more_body")
            if self.length > self.most_bytes:
                raise BodyRefused(
                    HttpError(
                        413,
                        "body_too_large",
                        f"got a body of more than {self.most_bytes:,} bytes; upload large files by POST /v1/files, "
                        "and send many jobs in several requests",
                        headers={"connection": "close"},
                    )
                )
        else:
            self._has_ended = True
        return message

    async def _receive_in_time(self) -> Message:
        loop = asyncio.get_running_loop()
        if self._began_s is None:
            self._began_s = loop.time()
        try:
            async with asyncio.timeout_at(
                self._began_s + GRACE_S + self.length / LEAST_BYTES_A_SECOND
            ):
                return await self._receive()
        except TimeoutError as error:
            raise BodyRefused(
                HttpError(
                    408,
                    "request_too_slow",
                    f"got {self.length:,} bytes of the body in {GRACE_S:g} s or more, expected at least "
                    f"{LEAST_BYTES_A_SECOND:,} a second; send it faster",
                    headers={"connection": "close"},
                )
            ) from error

    def is_left(self, scope: Scope) -> bool:
        """Tells if the caller is still sending, unless it waits to be told to (`Expect: 100-continue`)."""
        headers = dict(scope["headers"])
        has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        is_waiting = b"expect" in headers and not self._has_begun
        return has_body and not self._has_ended and not is_waiting


def set_body_limit(scope: Scope, most_bytes: int) -> None:
    """Sets the limit of this request's body to another one, before the body is read."""
    scope["state"]["body"].most_bytes = most_bytes
