"""AccessLine: the log line of a request, written when its answer has ended; uvicorn's own is off."""

from __future__ import annotations

import logging
import time

from starlette.types import Message, Scope, Send

from videoqa.telemetry import log_events

__all__ = ["NO_ROUTE", "AccessLine", "find_route"]

log = logging.getLogger(__name__)

NO_ROUTE = "(no route)"
_PROBES = ("/livez", "/readyz", "/metrics", "/static/")


def find_route(scope: Scope) -> str:
    """Returns the path of a request's route with the names of its parameters; a path of nobody's is none."""
    return str(getattr(scope.get("route"), "path", NO_ROUTE))


class AccessLine:
    """Notes the status of an answer, and writes the request's line."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._begun_s = time.monotonic()
        self._status = 0

    async def send(self, message: Message) -> None:
        """Passes a message on to the caller."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        await self._send(message)

    def write(self) -> None:
        """Writes the line."""
        route = find_route(self._scope)
        event = log_events.PROBE if route.startswith(_PROBES) else log_events.REQUEST
        event.log(
            log,
            method=self._scope["method"],
            route=route,
            status=self._status,
            ms=round(1000 * (time.monotonic() - self._begun_s), 1),
        )
