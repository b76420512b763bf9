"""The page of API keys, for administrators: made, rotated and revoked; a secret is shown once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import FormData

from videoqa import errors
from videoqa.gateway.access.caller import Administrator, NotingAdministrator
from videoqa.gateway.access.keys import (
    ROLES,
    KeyChanged,
    KeyFields,
    KeyNotFound,
    draw_id,
    parse_fields,
)
from videoqa.gateway.dashboard.frame import (
    PageRouter,
    leave_page,
    read_form,
    show_page,
    take_snapshot,
)
from videoqa.gateway.dashboard.rows import has_text, take_rows

__all__ = ["router"]

router = PageRouter()
PAGE = 50
_NUMBERS = (
    "jobs_per_day", "open_jobs", "frames_per_day", "tokens_per_day", "max_file_bytes",
)  # fmt: skip
OVERLAPS = (
    ("0", "at once"),
    ("3600", "after an hour"),
    ("86400", "after a day"),
    ("604800", "after a week"),
)
"""Seconds for which a rotated secret is valid as well, and the words for them."""


@router.get("/keys")
async def show_keys(
    request: Request, caller: Administrator, q: str = "", start: int = 0
) -> Response:
    """Shows all keys, the newest in front, without their secrets."""
    resources, text = caller.resources, q.strip()[:200]
    keys = await take_snapshot(caller, "keys", lambda: resources.run(resources.keys.list))
    found = [
        key for key in reversed(keys) if has_text(text, key.id, key.name, key.tenant, *key.roles)
    ]
    start = max(0, start)
    rows, next_start = take_rows(found, start, PAGE)
    return show_page(
        request,
        "keys.html",
        keys=rows,
        count=len(found),
        start=start,
        next_start=next_start,
        text=text,
        now=datetime.now(UTC),
    )


@router.get("/keys/new")
async def show_form(request: Request, caller: Administrator) -> Response:
    """Shows the form for a new key."""
    return _show_form(request, {"roles": ["submit", "read"]}, key_id=draw_id())


def _show_form(
    request: Request, values: Mapping[str, Any], *, key_id: str, error: str = "", status: int = 200
) -> Response:
    return show_page(
        request, "key_form.html", status, values=values, key_id=key_id, roles=ROLES, error=error
    )


@router.post("/keys")
async def create(request: Request, caller: NotingAdministrator) -> Response:
    """Makes a key; the same form makes it once."""
    form = await read_form(request)
    store, key_id = caller.resources.keys, str(form.get("id", ""))
    try:
        fields = _read_fields(form)
        made = await caller.resources.run(store.add, fields, who=caller.key.id, key_id=key_id)
    except KeyChanged as error:
        return leave_page(request, "/keys", notice=error.message, tone="warn")
    except errors.InvalidRequest as error:
        values = {**dict(form), "roles": form.getlist("roles")}
        return _show_form(request, values, key_id=key_id, error=error.message, status=400)
    return show_page(request, "key_text.html", 201, made=made, is_new=True)


def _read_fields(form: FormData) -> KeyFields:
    """Returns the fields of the form; empty ones are left out."""
    texts = {name: str(form.get(name, "")).strip() for name in ("name", "tenant", "output", "rate")}
    found: dict[str, Any] = {name: text for name, text in texts.items() if text or name == "name"}
    if not found["name"]:
        raise errors.InvalidRequest("name: got none, expected the owner's word for it")
    found["roles"] = form.getlist("roles")
    inputs = str(form.get("inputs", "")).split()
    if inputs:
        found["inputs"] = inputs
    for name in _NUMBERS:
        text = str(form.get(name, "")).strip().replace(",", "").replace("_", "")
        if text:
            is_number = text.isascii() and text.isdecimal() and len(text) < 17
            found[name] = int(text) if is_number else text
    webhook = str(form.get("webhook", "")).strip()
    if webhook:
        found["webhook"] = {"url": webhook}
    expires = str(form.get("expires_at", "")).strip()
    if expires:
        found["expires_at"] = f"{expires}T00:00:00Z" if len(expires) == 10 else expires
    return parse_fields(found)


@router.get("/keys/{key_id}")
async def show_key(request: Request, caller: Administrator, key_id: str) -> Response:
    """Shows one key with its rights and limits."""
    key = await caller.resources.run(caller.resources.keys.get, key_id)
    return show_page(
        request,
        "key.html",
        key=key,
        overlaps=OVERLAPS,
        is_own=key.id == caller.key.id,
        now=datetime.now(UTC),
    )


@router.post("/keys/{key_id}/rotate")
async def rotate(request: Request, caller: NotingAdministrator, key_id: str) -> Response:
    """Gives a key a new secret, unless that has happened since the reader's page was made."""
    form = await read_form(request)
    overlap, seen = str(form.get("overlap_s", "")), str(form.get("rotated_at", ""))
    if overlap not in dict(OVERLAPS):
        raise errors.InvalidRequest(f"got the overlap {overlap!r:.50}, expected one of the form's")
    store = caller.resources.keys
    try:
        made = await caller.resources.run(
            store.rotate,
            key_id,
            overlap_s=float(overlap),
            who=caller.key.id,
            if_rotated_at=seen,
        )
    except KeyChanged:
        notice = "Not rotated: its secret was changed meanwhile, and shown then."
        return leave_page(request, "/keys/{key_id}", key_id=key_id, notice=notice, tone="warn")
    return show_page(request, "key_text.html", made=made, is_new=False)


@router.post("/keys/{key_id}/revoke")
async def revoke(request: Request, caller: NotingAdministrator, key_id: str) -> Response:
    """Revokes a key; one that is revoked stays so."""
    await read_form(request)
    try:
        key = await caller.resources.run(caller.resources.keys.get, key_id)
        await caller.resources.run(caller.resources.keys.revoke, key_id, who=caller.key.id)
    except KeyNotFound:
        return leave_page(request, "/keys", notice="The key was revoked already.", tone="warn")
    return leave_page(request, "/keys", notice=f"Revoked: {key.name}.")
