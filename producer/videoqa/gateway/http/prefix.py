"""Prefix: the path below which a proxy shows the gateway, whether or not it takes it off before it passes a call on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Prefix", "find_prefix", "parse_prefix"]

MOST_LETTERS = 200
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def find_prefix(scope: Scope) -> str:
    """Returns the prefix of all links of an answer; empty: none."""
    return str(scope.get("state", {}).get("prefix", ""))


def parse_prefix(header: str) -> str:
    """Returns the first prefix of `X-Forwarded-Prefix`; empty if it is none."""
    given = header.partition(",")[0].strip().rstrip("/")
    return given if len(given) <= MOST_LETTERS and _PREFIX.fullmatch(given) else ""


class Prefix:
    """Takes the prefix off the paths of calls, and remembers it for links. It sees the address that really calls."""

    def __init__(self, app: ASGIApp, *, own: str, proxies: Sequence[str]) -> None:
        """
        Arguments:
            own: prefix of the settings.
            proxies: networks whose `X-Forwarded-Prefix` is believed.
        """
        self._app = app
        self._own = own
        self._proxies = [ip_network(one.strip(), strict=False) for one in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http":
            prefix = self._find(scope)
            scope = {**scope, "state": {**scope.get("state", {}), "prefix": prefix}}
            if prefix and f"{scope['path']}/".startswith(f"{prefix}/"):
                scope["path"] = scope["path"].removeprefix(prefix) or "/"
                raw = scope.get("raw_path") or b""
                scope["raw_path"] = raw.removeprefix(prefix.encode()) or b"/"
        await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> str:
        given = Headers(scope=scope).get("x-forwarded-prefix")
        return parse_prefix(given) or self._own if given and self._is_proxy(scope) else self._own

    def _is_proxy(self, scope: Scope) -> bool:
        try:
            address = ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return False
        return any(address in network for network in self._proxies)
