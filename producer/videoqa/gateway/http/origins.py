"""Origins: the web pages that may call the gateway, and the calls of a gateway without keys that no page may make.

A gateway without keys trusts whoever reaches it over loopback, which any page in a browser on the machine does: by a
form or a `fetch` without preflight, or by a name of its own that it has resolved to 127.0.0.1 (DNS rebinding). So the
name in `Host` must be one of loopback, the caller must be on this machine, also by what a proxy says, and a change must
come from a page of the gateway itself, a listed origin, or no page at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from videoqa.gateway.http.error_responses import make_error_response
from videoqa.gateway.http.middleware import find_request_id
from videoqa.gateway.http.problems import HttpError

__all__ = ["EXPOSED_HEADERS", "LocalCalls", "check_local", "check_origin"]

EXPOSED_HEADERS = (
    "Content-Disposition", "Content-Range", "ETag", "Location", "Preference-Applied", "RateLimit",
    "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-ID", "X-Should-Retry", "X-VideoQA-Job-Id",
)  # fmt: skip
"""Headers of answers that a page of another origin may read, besides the usual ones."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


def check_origin(scope: Scope, origins: Sequence[str]) -> None:
    """Raises HttpError for a change that comes from a page of a foreign origin.

    Arguments:
        origins: those that may besides the gateway's own.
    """
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    if site == "same-origin":  # by the browser itself, also behind a proxy that changes Host
        is_foreign = False
    elif origin is None:
        is_foreign = site in ("cross-site", "same-site")
    else:
        own = f"{scope['scheme']}://{headers.get('host', '')}"
        is_foreign = origin.lower() != own.lower() and origin not in origins and "*" not in origins
    if is_foreign and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
        raise HttpError(
            403,
            "foreign_origin",
            f"the call comes from a web page of {origin or 'another site'!r:.200}, expected one of the gateway "
            "itself or of VIDEOQA_GATEWAY_CORS_ORIGINS",
        )


def check_local(scope: Scope) -> None:
    """Raises HttpError for a call by a host name that is not loopback's, or one that a proxy passes on for others."""
    host = Headers(scope=scope).get("host")
    match = _HOST.fullmatch(host.strip()) if host is not None else None
    if host is not None and (match is None or match[1].lower() not in LOOPBACK):
        raise HttpError(
            421,
            "foreign_host",
            f"got the host {host!r:.200}, expected {', '.join(LOOPBACK)}: a gateway without keys is for callers "
            "on its own machine; make a key with `videoqa keys create` for others",
        )
    address = (scope.get("client") or ("",))[0]
    if not _is_loopback(address):
        raise HttpError(
            421,
            "foreign_host",
            f"a proxy passes on a call of {address!r:.100}, expected one of the gateway's own machine: a gateway "
            "without keys is for nobody else; unset VIDEOQA_GATEWAY_OPEN, and make a key with `videoqa keys create`",
        )


def _is_loopback(address: str) -> bool:
    """Tells if an address is of this machine; a text that is none was written by no socket."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


class LocalCalls:
    """Refuses calls to a gateway without keys that a foreign web page could make."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http":
            try:
                check_local(scope)
                check_origin(scope, self._origins)
            except HttpError as error:
                response = make_error_response(error, scope, request_id=find_request_id(scope))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
