"""CountRequests: middleware that counts the requests of a gateway by route, method and class of status."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videoqa.gateway.metrics.own_metrics import OwnMetrics
from videoqa.telemetry.metrics.declaration import OTHER

__all__ = ["CountRequests"]


class CountRequests:
    """Counts a request when its answer begins: a stream may go on for hours."""

    def __init__(self, app: ASGIApp, *, metrics: OwnMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s = time.perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The template: each id in a path would be a series of its own.
                route = getattr(scope.get("route"), "path", OTHER)
                seconds = time.perf_counter() - begun_s
                self._metrics.note_request(route, scope["method"], message["status"], seconds)
            await send(message)

        await self._app(scope, receive, send_counted)
