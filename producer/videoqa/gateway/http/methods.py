"""The methods that no route names: HEAD as GET without the body, and OPTIONS with the methods of a path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videoqa.gateway.http.event_stream import wait_until_gone

__all__ = ["HeadAnswers", "MethodTable"]


class HeadAnswers:
    """Answers HEAD as GET, with the same head, and no body; a stream ends after its head."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        answer = _HeadOnly(receive, send)
        # A copy: the server itself knows that it is HEAD.
        await self._app({**scope, "method": "GET"}, answer.receive, answer.send)
        await answer.end()


class _HeadOnly:
    """The two ends of an answer of which only the head is sent; after it, its caller has hung up."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._has_read = False
        self._has_started = asyncio.Event()

    async def receive(self) -> Message:
        if not self._has_read:
            self._has_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(wait_until_gone(self._receive)),
            asyncio.ensure_future(self._has_started.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_started.set()
            await self._send(message)

    async def end(self) -> None:
        if self._has_started.is_set():
            await self._send({"type": "http.response.body", "body": b""})


class MethodTable:
    """The methods of each path, over all routes: each route of the app knows its own only."""

    def __init__(self, routes: Iterable[tuple[str, Iterable[str]]]) -> None:
        """
        Arguments:
            routes: path and methods of each.
        """
        self._rows = [(compile_path(path)[0], frozenset(methods)) for path, methods in routes]

    def describe(self, path: str) -> str:
        """Returns the value of `Allow` for a path."""
        found = {"OPTIONS"}.union(*(methods for regex, methods in self._rows if regex.match(path)))
        return ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))
