"""HideStorage: ids of files in place of the URLs under which workers read them, in every answer that is text.

The record of a job has the URL, and so have its errors, warnings and sources. All answers pass through here, so that no
route has to think of it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videoqa.gateway.files.names import FILE_ID

__all__ = ["HideStorage", "StorageUrls"]

_TEXTS = ("application/json", "application/problem+json", "text/")


class StorageUrls:
    """Finds the URLs of one place in texts."""

    def __init__(self, base: str | None) -> None:
        """
        Arguments:
            base: URL of all objects; None: there are none.
        """
        path = urlsplit(base).path if base and base.startswith("file:") else ""
        found = [re.escape(each) for each in (base, path, unquote(path)) if each]
        self._mark = b"/file-"
        self._url = (
            re.compile(f"(?:{'|'.join(found)})({FILE_ID})(?:/[.A-Za-z0-9_-]*)?".encode())
            if found
            else None
        )

    def hide(self, text: str) -> str:
        """Returns the text with ids in place of URLs."""
        return self.hide_bytes(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")

    def find(self, text: str) -> list[str]:
        """Returns the ids of the files whose URLs are in a text."""
        if self._url is None:
            return []
        return [each.decode() for each in self._url.findall(text.encode(errors="replace"))]

    def hide_bytes(self, text: bytes) -> bytes:
        if self._url is None or self._mark not in text:
            return text
        return self._url.sub(rb"\1", text)


class HideStorage:
    """Middleware, as plain ASGI."""

    def __init__(self, app: ASGIApp, *, urls: StorageUrls) -> None:
        self._app = app
        self._urls = urls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        start: Message | None = None
        is_text = False

        async def send_hidden(message: Message) -> None:
            """Sends the start with the first part of the body, whose length may change."""
            nonlocal start, is_text
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_text = (
                    headers.get("content-type", "").startswith(_TEXTS)
                    and "content-encoding" not in headers
                )
                # A stream has no length: its start is sent at once.
                if is_text and "content-length" in headers:
                    start = message
                    return
            elif message["type"] == "http.response.body" and is_text:
                message = self._hide(message, start)
                if start is not None:
                    await send(start)
                    start = None
            await send(message)

        await self._app(scope, receive, send_hidden)

    def _hide(self, message: Message, start: Message | None) -> Message:
        before = message.get("body", b"")
        after = self._urls.hide_bytes(before)
        if start is not None and len(after) != len(before):
            headers = MutableHeaders(scope=start)
            length = int(headers["content-length"]) + len(after) - len(before)
            headers["content-length"] = str(length)
        hidden: dict[str, Any] = {**message, "body": after}
        return hidden
