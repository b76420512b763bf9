"""Server-sent events, as a response that ends when its caller hangs up, when it is done, or when the gateway stops.

A comment comes after some seconds of silence, so that proxies do not take the connection for dead. The first event is
waited for before the response begins: a request that fails has a status of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from videoqa.errors import VideoQAError, WrongKey
from videoqa.gateway.http.problems import GatewayStopping, HttpError
from videoqa.telemetry import log_events

__all__ = ["EventStream", "ServerEvent", "wait_until_gone"]

log = logging.getLogger(__name__)

SILENCE_S = 10.0
"""Time after which a comment is sent."""
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_END: Any = object()
_LINE_END = re.compile(r"\r\n|\n|\r")
_UNICODE_LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}


@dataclass(frozen=True)
class ServerEvent:
    """One event: its data is sent as JSON, or as it is if it is text."""

    data: Any
    id: str | None = None
    event: str | None = None

    def encode(self) -> bytes:
        lines = []
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        text = self.data if isinstance(self.data, str) else _dump(self.data)
        lines += [f"data: {line}" for line in _LINE_END.split(text)]
        return ("\n".join(lines) + "\n\n").encode()


def _dump(data: Any) -> str:
    """Returns JSON in one line, also for clients that split lines where Unicode does."""
    return json.dumps(data, ensure_ascii=False).translate(_UNICODE_LINE_ENDS)


class EventStream(Response):
    """The response; `events` is closed whichever way it ends."""

    def __init__(
        self,
        events: AsyncIterator[ServerEvent],
        *,
        stop: asyncio.Event,
        headers: dict[str, str] | None = None,
        describe: Callable[[VideoQAError], ServerEvent] | None = None,
    ) -> None:
        """
        Arguments:
            stop: set when the gateway ends; the caller resumes at another one.
            describe: makes the last event of a stream that fails; None: the stream ends, and its caller resumes it. A
                stream with it cannot be resumed, so the gateway's end is such a failure, too.
        """
        super().__init__(headers=headers)
        self._events = events
        self._stop = stop
        self._describe = describe
        self.raw_headers = HEADERS + [
            (name, value) for name, value in self.raw_headers if name != b"content-length"
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events, if the caller has not too many streams open; raises HttpError."""
        state = scope["state"]
        streams = scope["app"].state.resources.streams
        with streams.enter(state.get("key_id", ""), state.get("credential")) as revoked:
            await self._send_all(receive, send, revoked)

    async def _send_all(self, receive: Receive, send: Send, revoked: asyncio.Future[None]) -> None:
        source = self._events.__aiter__()
        leaving = asyncio.ensure_future(wait_until_gone(receive))
        stopping = asyncio.ensure_future(self._stop.wait())
        following: asyncio.Future[Any] = asyncio.ensure_future(_get_next(source))
        try:
            await asyncio.wait(
                [following, leaving, stopping, revoked],
                timeout=SILENCE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if leaving.done():
                return
            if following.done():
                following.result()  # raises before anything is sent
            elif stopping.done() and self._describe is not None:
                raise GatewayStopping
            elif revoked.done():
                raise _make_revoked()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while not leaving.done():
                data, is_last = self._encode_next(following, stopping, revoked)
                if data or is_last:
                    await send(_body(data, more=not is_last))
                if is_last:
                    break
                if following.done():
                    following = asyncio.ensure_future(_get_next(source))
                await asyncio.wait(
                    [following, leaving, stopping, revoked],
                    timeout=SILENCE_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for task in (following, leaving, stopping):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await following
            close = getattr(source, "aclose", None)
            if close is not None:
                await asyncio.shield(close())

    def _encode_next(
        self,
        following: asyncio.Future[Any],
        stopping: asyncio.Future[Any],
        revoked: asyncio.Future[None],
    ) -> tuple[bytes, bool]:
        """Returns what to send now, and True if it is the last."""
        if stopping.done() or revoked.done():
            ended = GatewayStopping() if stopping.done() else _make_revoked()
            return b"" if self._describe is None else self._describe(ended).encode(), True
        if not following.done():
            return b": waiting\n\n", False
        try:
            event = following.result()
        except Exception as error:
            if self._describe is None:
                if not isinstance(error, VideoQAError):
                    raise
                log_events.STREAM_CUT.log(log, error=error)
                return b"", True
            return self._describe(_name_error(error)).encode(), True
        return (b"", True) if event is _END else (event.encode(), False)


def _name_error(error: Exception) -> VideoQAError:
    if isinstance(error, VideoQAError):
        return error
    log_events.STREAM_FAILED.log(log, exc_info=error)
    return HttpError(500, "internal_error", "the gateway met an unexpected error; its log has it")


def _make_revoked() -> WrongKey:
    return WrongKey("the API key or the session of this stream was revoked, or is over")


def _body(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _get_next(source: AsyncIterator[ServerEvent]) -> Any:
    try:
        return await source.__anext__()
    except StopAsyncIteration:
        return _END


async def wait_until_gone(receive: Receive) -> None:
    """Waits until the caller has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
