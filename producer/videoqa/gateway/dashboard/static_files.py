"""Static files of the pages, under addresses with a hash of their contents, so that browsers keep them for good."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from videoqa.gateway.http.etags import has_tag, make_tag
from videoqa.gateway.http.problems import HttpError
from videoqa.palette import read_palette

__all__ = ["VERSION", "router"]

router = APIRouter(include_in_schema=False)

_KINDS = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_FILES = {
    path.name: path.read_bytes()
    for path in sorted((Path(__file__).parent / "static").iterdir())
    if path.suffix in _KINDS
}
_FILES["app.css"] = read_palette().encode() + _FILES["app.css"]
_TAGS = {name: make_tag(data) for name, data in _FILES.items()}
VERSION = hashlib.sha256(
    "".join(f"{name}{tag}" for name, tag in _TAGS.items()).encode()
).hexdigest()[:12]
"""Part of every file's address; another one in another release."""


@router.get("/static/{version}/{name}")
async def get_static(request: Request, version: str, name: str) -> Response:
    """Returns a file; under the address of another release it is not kept."""
    data = _FILES.get(name)
    if data is None:
        raise HttpError(404, "route_not_found", f"there is no file {name!r:.100} of the dashboard")
    is_own = version == VERSION
    headers = {
        "cache-control": "public, max-age=31536000, immutable" if is_own else "no-cache",
        "etag": _TAGS[name],
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    }
    if has_tag(_TAGS[name], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=_KINDS[Path(name).suffix])
