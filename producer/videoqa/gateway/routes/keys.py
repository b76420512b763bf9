"""API keys and the audit log, for administrators of all tenants."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from videoqa.errors import InvalidRequest
from videoqa.gateway.access.caller import Administrator, NotingAdministrator
from videoqa.gateway.access.keys import KeyFields, NewKey, parse_fields
from videoqa.gateway.http.bodies import read_object
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import KeyId
from videoqa.gateway.routes.answers import AuditList, KeyList, MadeKey, RotateBody

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Keys"])


def _show(made: NewKey, status: int) -> Response:
    body = made.key.model_dump(mode="json") | {"text": made.text}
    return JSONResponse(body, status)


@router.get("/keys")
@document(
    "list_keys", answers={200: Answer("All keys.", Content(KeyList, {"keys": [examples.KEY]}))}
)
async def list_keys(caller: Administrator) -> Response:
    """Lists all API keys, oldest first, without their secrets."""
    found = await caller.resources.run(caller.resources.keys.list)
    return JSONResponse({"keys": [key.model_dump(mode="json") for key in found]})


@router.post("/keys", status_code=201)
@document(
    "create_key",
    body=Content(KeyFields, examples.KEY_ASKED),
    answers={201: Answer("The key, with its text.", Content(MadeKey, examples.MADE_KEY))},
)
async def create_key(request: Request, caller: NotingAdministrator) -> Response:
    """Makes an API key; its `text` is in this answer, and never shown again."""
    fields = parse_fields(await read_object(request))
    store = caller.resources.keys
    return _show(await caller.resources.run(store.add, fields, who=caller.key.id), 201)


@router.post("/keys/{key_id}/rotate")
@document(
    "rotate_key",
    body=Content(RotateBody, {"overlap_s": 86_400}),
    answers={200: Answer("The key, with its new text.", Content(MadeKey, examples.MADE_KEY))},
    errors=("key_not_found", "key_changed"),
)
async def rotate_key(request: Request, caller: NotingAdministrator, key_id: KeyId) -> Response:
    """Gives a key a new secret; the old one is valid for another `overlap_s`, at most 30 days."""
    overlap_s = _read_overlap(await read_object(request))
    store = caller.resources.keys
    made = await caller.resources.run(store.rotate, key_id, overlap_s=overlap_s, who=caller.key.id)
    return _show(made, 200)


def _read_overlap(body: dict[str, Any]) -> float:
    found = body.get("overlap_s", 0)
    if body.keys() - {"overlap_s"} or isinstance(found, bool) or not isinstance(found, int | float):
        raise InvalidRequest('expected {"overlap_s": SECONDS}, or {}', param="overlap_s")
    return float(found)


@router.delete("/keys/{key_id}", status_code=204)
@document("revoke_key", answers={204: Answer("The key is revoked.")}, errors=("key_not_found",))
async def revoke_key(caller: NotingAdministrator, key_id: KeyId) -> Response:
    """Revokes a key: every gateway refuses it within two seconds, and so the sessions of browsers that it logged in."""
    store = caller.resources.keys
    await caller.resources.run(store.revoke, key_id, who=caller.key.id)
    return Response(status_code=204)


@router.get("/audit")
@document(
    "list_audit",
    answers={
        200: Answer(
            "The entries.",
            Content(
                AuditList, {"entries": [examples.AUDIT], "next_cursor": None, "has_more": False}
            ),
        )
    },
)
async def list_audit(
    caller: Administrator,
    q: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description="Only entries with this text in one of their fields, in any case.",
            examples=["cancel"],
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        Query(description="`next_cursor` of the page before.", examples=["1764495004000-0"]),
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=10_000, description="Most entries.", examples=[100])
    ] = 100,
) -> Response:
    """Lists what operators and administrators changed, newest first."""
    page = await caller.resources.run(
        caller.resources.audit.find, text=q, cursor=cursor, limit=limit
    )
    body = AuditList(
        entries=page.entries, next_cursor=page.next_cursor, has_more=page.next_cursor is not None
    )
    return JSONResponse(body.model_dump(mode="json"))
