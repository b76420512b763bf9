"""Log in by a link or a key, and out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import cast

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from videoqa.errors import RateLimited
from videoqa.gateway.access.keys import WrongKey
from videoqa.gateway.access.sessions import COOKIE, SESSION_S, WrongLogin
from videoqa.gateway.dashboard.forms import read_fields, read_form
from videoqa.gateway.dashboard.frame import HEADERS, PageRouter, leave_page, show_login
from videoqa.gateway.dashboard.links import choose_local_path, find_cookie_path, make_link
from videoqa.gateway.http.origins import check_origin
from videoqa.gateway.resources import Resources

__all__ = ["find_network", "router"]

router = PageRouter()

TRIES = "20/m"
"""Most tries to log in, of one IPv4 address or one IPv6 network of 64 bits."""
FORM_BYTES = 20_000
"""Most bytes of the form for a key, which anybody may send."""


@router.get("/login")
async def show_form(request: Request, token: str = "", next: str = "/") -> Response:
    """Shows the form for a key; a link's token logs in at once, and leads to a page without it.

    A link that another site has opened is asked back: that site may want its visitor to work in a session of its own.
    """
    resources = cast(Resources, request.app.state.resources)
    if resources.settings.gateway_open:
        return leave_page(request, choose_local_path(next))
    if not token:
        return show_login(request, goes_to=next)
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return show_login(request, goes_to=next, link=token)
    return await _follow_link(request, token, next)


async def _follow_link(request: Request, token: str, goes_to: str) -> Response:
    resources = cast(Resources, request.app.state.resources)
    try:
        await _count_try(request)
        session = await resources.run(resources.sessions.begin, token)
    except (WrongLogin, RateLimited) as error:
        request.scope["state"]["credential"] = "link", ""
        return show_login(request, error=error, goes_to=goes_to)
    return _begin(request, session, goes_to)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Begins a session for a key, or for a link that another site has opened."""
    check_origin(request.scope, ())
    resources = cast(Resources, request.app.state.resources)
    form = await read_fields(request, most_fields=10, most_bytes=FORM_BYTES)
    text, goes_to = str(form.get("key") or "").strip(), str(form.get("next") or "/")
    if form.get("token"):
        return await _follow_link(request, str(form["token"]), goes_to)
    try:
        await _count_try(request)
        if not text:
            raise WrongKey("got no key; paste one that `videoqa keys create` has printed")
        key = await resources.run(resources.keys.check, text)
    except (WrongKey, RateLimited) as error:
        return show_login(request, error=error, goes_to=goes_to)
    return _begin(request, await resources.run(resources.sessions.make_session, key.id), goes_to)


async def _count_try(request: Request) -> None:
    """Counts a try to log in; raises RateLimited."""
    resources = cast(Resources, request.app.state.resources)
    network = find_network(request.client.host if request.client else "")
    refusal = await resources.run(resources.limits.count_login, network, TRIES)
    if refusal is not None:
        raise refusal


def find_network(address: str) -> str:
    """Returns what one caller has of the addresses: an IPv4 one, or the 64 bits of an IPv6 network."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Network((int(found) >> 64 << 64, 64)))


def _begin(request: Request, session: str, goes_to: str) -> Response:
    target = make_link(request, "/").rstrip("/") + choose_local_path(goes_to)
    answer = RedirectResponse(target, 303, HEADERS | {"referrer-policy": "no-referrer"})
    answer.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_S,
        path=find_cookie_path(request),
        httponly=True,
        # Not strict: a link in a chat to a job would lead those who are logged in to the form. No GET changes anything,
        # and forms have tokens.
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Ends the session of the cookie."""
    check_origin(request.scope, ())
    resources = cast(Resources, request.app.state.resources)
    session = request.cookies.get(COOKIE)
    if session:
        request.scope["state"]["credential"] = "session", session
        await read_form(request)
        resources.checked.forget("session", session)
        await resources.run(resources.sessions.end, session)
    answer = leave_page(request, "/login")
    answer.delete_cookie(COOKIE, path=find_cookie_path(request), httponly=True, samesite="lax")
    return answer
