"""Links of pages: below any prefix, with values in their path and query."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request

from videoqa.gateway.http.prefix import find_prefix

__all__ = ["choose_local_path", "find_cookie_path", "make_link"]

_FIELD = re.compile(r"{(\w+)}")
_LOCAL = re.compile(r"/(?![/\\])[^\x00-\x20\\\x7f]*")


def make_link(request: Request, path: str, /, **values: Any) -> str:
    """Returns the link to a path of the gateway, with the prefix under which the reader reaches it.

    Arguments:
        values: those that the path names fill it; the others are its query, but for None.
    """
    names = set(_FIELD.findall(path))
    filled = _FIELD.sub(lambda match: quote(str(values[match[1]]), safe=""), path)
    query = {
        name: value for name, value in values.items() if name not in names and value is not None
    }
    rest = f"?{urlencode(query, doseq=True, errors='replace')}" if query else ""
    return f"{find_prefix(request.scope)}{filled}{rest}"


def find_cookie_path(request: Request) -> str:
    """Returns the path of the gateway's cookies: the prefix, so that no neighbour of it gets them."""
    return find_prefix(request.scope) or "/"


def choose_local_path(text: str | None) -> str:
    """Returns a path that leads nowhere else, or that of the first page."""
    return text if text and len(text) <= 2000 and _LOCAL.fullmatch(text) else "/"
