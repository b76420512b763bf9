"""Forms of pages: the token that ties a form to its reader's session, and the words that the next page shows once.

A foreign page can make a browser send a form with the session's cookie, but cannot know the token. A key in a header is
sent by no browser by itself, so that programs that use one need no token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from starlette.datastructures import FormData, UploadFile

from videoqa.gateway.http.bodies import find_media_type
from videoqa.gateway.http.middleware import set_body_limit
from videoqa.gateway.http.problems import HttpError

__all__ = [
    "TOKEN",
    "check_token",
    "make_token",
    "parse_form",
    "parse_notice",
    "read_fields",
    "read_form",
    "read_notice",
    "write_notice",
]

TOKEN = "csrf"  # noqa: S105 a field's name
NOTICE = "videoqa_notice"
NOTICE_S = 60
MOST_FIELDS = 5000
_OPEN = secrets.token_bytes(32)
"""Secret of the forms of a gateway that asks for no key."""


def _find_secret(request: Request) -> bytes:
    """Returns the secret of the session, which its cookie alone has; empty for a key in a header."""
    state = request.scope["state"]
    kind, text = state.get("credential", ("open", ""))
    if kind == "open":
        return _OPEN
    return str(text).encode(errors="surrogateescape") if kind == "session" else b""


def _sign(request: Request, purpose: str) -> str:
    secret = _find_secret(request)
    return hmac.new(secret, purpose.encode(), hashlib.sha256).hexdigest() if secret else ""


def make_token(request: Request) -> str:
    """Returns the token of all forms of this session."""
    return _sign(request, "videoqa form")


async def read_form(request: Request) -> FormData:
    """Returns the fields of a form; raises HttpError if it has not the token of its session."""
    form = await read_fields(request, most_fields=MOST_FIELDS)
    check_token(request, form.get(TOKEN, ""))
    return form


async def read_fields(
    request: Request, *, most_fields: int, most_bytes: int | None = None
) -> FormData:
    """Returns the fields of a form without files; raises HttpError if it is none, or has too many.

    They are counted before they are parsed: a parser that walks through the bytes would hold up the gateway for seconds
    at a body of nothing but separators.

    Arguments:
        most_bytes: limit of the body; None: that of all requests.
    """
    if most_bytes is not None:
        set_body_limit(request.scope, most_bytes)
    body, kind = await request.body(), find_media_type(request)
    if kind.startswith("multipart/"):
        raise HttpError(
            415,
            "unsupported_media_type",
            f"got a body of type {kind!r:.100}, expected application/x-www-form-urlencoded",
        )
    if kind != "application/x-www-form-urlencoded":
        return FormData()  # a program's call with a key, which needs no token
    return parse_form(body, most_fields)


def parse_form(body: bytes, most_fields: int = MOST_FIELDS) -> FormData:
    """Returns the fields of a form's body; raises HttpError if it has too many."""
    try:
        found: list[tuple[str, str | UploadFile]] = [
            *parse_qsl(
                body.decode("ascii", errors="replace"),
                keep_blank_values=True,
                errors="replace",
                max_num_fields=most_fields,
            )
        ]
    except ValueError as error:
        raise HttpError(
            400, "invalid_request", f"got a form of more than {most_fields:,} fields; send fewer"
        ) from error
    return FormData(found)


def check_token(request: Request, given: object) -> None:
    """Raises HttpError unless a form's token is that of its session."""
    expected = make_token(request)
    if not isinstance(given, str) or not hmac.compare_digest(
        given.encode(errors="replace") if expected else b"", expected.encode()
    ):
        raise HttpError(
            403,
            "stale_form",
            "got a form without the token of this session, expected one of a page that was opened in it; open the page "
            "again, and repeat",
        )


def write_notice(request: Request, response: Response, words: str, tone: str, path: str) -> None:
    """Leaves words to the next page, in a cookie that only this session can have written."""
    data = json.dumps([tone, words[:500]]).encode()
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    sign = _sign(request, f"videoqa notice {text}")
    if sign:
        response.set_cookie(
            NOTICE, f"{text}.{sign}", max_age=NOTICE_S, path=path, httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip


def read_notice(request: Request) -> dict[str, str] | None:
    """Returns the tone and words that the page before has left, if they are this session's."""
    text, _, sign = request.cookies.get(NOTICE, "").partition(".")
    expected = _sign(request, f"videoqa notice {text}")
    is_own = expected and hmac.compare_digest(sign.encode(errors="replace"), expected.encode())
    return parse_notice(text) if is_own else None


def parse_notice(text: str) -> dict[str, str] | None:
    """Returns the tone and words of a cookie; None if it is broken."""
    try:
        found: Any = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return {"tone": str(found[0]), "words": str(found[1])}
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
