"""Pages of the dashboard: their routes, their answers, and errors that are pages as well."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from videoqa import errors
from videoqa.gateway.access.caller import Caller
from videoqa.gateway.access.keys import ApiKey
from videoqa.gateway.access.sessions import COOKIE
from videoqa.gateway.dashboard.forms import NOTICE, read_form, read_notice, write_notice
from videoqa.gateway.dashboard.links import choose_local_path, find_cookie_path, make_link
from videoqa.gateway.dashboard.templating import PageValues, render, render_block
from videoqa.gateway.http.etags import has_tag, make_tag
from videoqa.gateway.http.middleware import find_request_id
from videoqa.gateway.http.problems import find_code, find_message, find_status, make_error_headers
from videoqa.gateway.resources import Resources
from videoqa.gateway.snapshots import KEPT_S
from videoqa.printable import printable

__all__ = [
    "HEADERS",
    "PageRoute",
    "PageRouter",
    "hide_ages",
    "leave_page",
    "make_error_page",
    "make_link",
    "read_form",
    "read_now",
    "show_login",
    "show_page",
    "take_snapshot",
]

HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
            "media-src 'self' blob:", "connect-src 'self'", "font-src 'self'", "form-action 'self'",
            "frame-ancestors 'none'", "base-uri 'none'",
        )
    ),
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}  # fmt: skip
"""Headers of every page: nothing inline, and nothing of another host."""
_AGE = re.compile(r"( data-age>)[^<]*")


T = TypeVar("T")


class PageRoute(APIRoute):
    """A route whose answers are pages, its errors too."""

    def make_error_page(self, error: errors.VideoQAError, request: Request) -> Response:
        """Makes the page of an error."""
        return make_error_page(error, request)


class PageRouter(APIRouter):
    """A router of pages, which the OpenAPI document leaves out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=PageRoute, include_in_schema=False, **options)


async def take_snapshot(
    caller: Caller,
    view: str,
    make: Callable[[], Awaitable[T]],
    *arguments: Hashable,
    kept_s: float = KEPT_S,
) -> T:
    """Returns the data of a view, shared for a moment among all who see the same tenant; do not change them.

    Arguments:
        view: name of the data.
        arguments: all else that they depend on, as filters.
    """
    await read_now(caller)  # the page counts ages on it
    return await caller.resources.snapshots.take(
        (caller.key.tenant, view, *arguments), make, kept_s
    )


async def read_now(caller: Caller) -> datetime:
    """Returns the time of Redis, whose clock is looked at every half minute."""
    resources = caller.resources
    clock = resources.snapshots.clock
    if clock.is_old():

        async def measure() -> None:
            clock.set(await resources.run(resources.read_clock))

        await resources.snapshots.take("clock", measure)
    return clock.now()


def _make_values(request: Request) -> PageValues:
    resources = cast(Resources, request.app.state.resources)
    state = request.scope["state"]
    session = request.cookies.get(COOKIE)
    if resources.settings.gateway_open:
        state["key"] = resources.open_key
    elif "key" not in state and session:
        # A path without a route, or an error before the key was checked.
        state["key"] = resources.checked.find("session", session)
        state.setdefault("credential", ("session", session))
    return PageValues(
        request, cast("ApiKey | None", state.get("key")), resources.snapshots.clock.now()
    )


def show_page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Returns the page of a template, or only the block that htmx asks for."""
    if request.method == "POST" and status < 400:
        _drop_snapshots(request)
    values = _make_values(request)
    headers = HEADERS | {"videoqa-now": str(int(values.now.timestamp() * 1000))}
    # A page may have several regions of one block: `rows`, `rows-2`.
    block = request.headers.get("hx-target", "").partition("-")[0] or None
    if block is not None and "hx-request" in request.headers:
        part = render_block(template, block, values, context)
        if part is not None:
            return _answer_part(request, part, status, headers)
    notice = read_notice(request)
    text = render(template, values, {"notice": notice, **context})
    response = HTMLResponse(text, status, headers)
    if NOTICE in request.cookies:
        response.delete_cookie(NOTICE, path=find_cookie_path(request), httponly=True)
    return response


def _drop_snapshots(request: Request) -> None:
    cast(Resources, request.app.state.resources).snapshots.drop()


def _answer_part(request: Request, part: str, status: int, headers: dict[str, str]) -> Response:
    # The words of ages change by themselves, and the reader's script counts them on.
    headers["etag"] = make_tag(hide_ages(part).encode(errors="replace"))
    if status == 200 and has_tag(headers["etag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return HTMLResponse(part, status, headers)


def hide_ages(text: str) -> str:
    """Returns a page's text without the words of ages."""
    return _AGE.sub(r"\1", text)


def leave_page(
    request: Request, path: str, *, notice: str = "", tone: str = "good", **values: Any
) -> Response:
    """Leads to another page after a form, which may show some words once.

    Arguments:
        path: path of the page, as for `make_link`, with its values.
        tone: `good`, `warn` or `bad`.
    """
    _drop_snapshots(request)
    response = RedirectResponse(make_link(request, path, **values), 303, HEADERS)
    if notice:
        write_notice(request, response, printable(notice), tone, find_cookie_path(request))
    return response


def make_error_page(error: errors.VideoQAError, request: Request) -> Response:
    """Makes the page of an error; without a key or a session that of the login."""
    status = find_status(error)
    if status == 401:
        return show_login(request, error=error)
    headers = make_error_headers(error)
    response = show_page(
        request,
        "error.html",
        status,
        error_status=status,
        error_code=find_code(error),
        error_words=printable(find_message(error)),
        request_id=find_request_id(request.scope),
    )
    response.headers.update(headers)
    return response


def show_login(
    request: Request,
    *,
    error: errors.VideoQAError | None = None,
    goes_to: str | None = None,
    link: str = "",
) -> Response:
    """Shows the form for a key, and above it why the reader is here.

    Arguments:
        link: token of a link that the form follows in place of a key.
    """
    if goes_to is None:
        query = request.url.query
        is_page = request.method in ("GET", "HEAD")
        goes_to = request.scope["path"] + (f"?{query}" if query else "") if is_page else "/"
    request.scope["state"]["key"] = None
    # Nobody has done anything wrong who has shown nothing yet.
    has_tried = request.method == "POST" or "credential" in request.scope["state"]
    response = show_page(
        request,
        "login.html",
        200 if error is None else find_status(error),
        error_words=printable(find_message(error)) if error is not None and has_tried else "",
        goes_to=choose_local_path(goes_to),
        link=link,
    )
    if error is not None:
        response.headers.update(make_error_headers(error))
    return response
