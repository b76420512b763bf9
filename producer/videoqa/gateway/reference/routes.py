"""The routes of the docs page, which need no key and no Redis."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from videoqa.gateway.reference.page import make_page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_STYLE = (Path(__file__).parent / "style.css").read_bytes()
_ICON = (Path(__file__).parent / "icon.svg").read_bytes()
_POLICY = "; ".join(
    (
        "default-src 'none'", "style-src 'self'", "img-src 'self'", "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'",
    )
)  # fmt: skip
"""No script runs on the page, and nothing comes from another host."""


@router.get("/docs")
async def show_page(request: Request) -> Response:
    """Shows the page."""
    state = request.app.state
    if not hasattr(state, "docs_page"):
        state.docs_page = make_page(request.app.openapi()).encode()
    return _answer(request, state.docs_page, "text/html")


@router.get("/docs/style.css")
async def get_style(request: Request) -> Response:
    """Returns the page's style."""
    return _answer(request, _STYLE, "text/css")


@router.get("/docs/icon.svg")
async def get_icon(request: Request) -> Response:
    """Returns the page's icon."""
    return _answer(request, _ICON, "image/svg+xml")


def _answer(request: Request, body: bytes, kind: str) -> Response:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "content-security-policy": _POLICY,
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "etag": tag,
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=kind)
