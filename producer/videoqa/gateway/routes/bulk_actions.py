"""Bulk actions: cancel, retry or purge all jobs that a filter selects, in the background, with progress."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from videoqa.contract import BulkAction, FilterKeywords, JobFilter
from videoqa.gateway.access.caller import Reader, Submitter
from videoqa.gateway.http.bodies import parse_model, read_object
from videoqa.gateway.http.idempotency import parse_idempotency_key
from videoqa.gateway.http.queries import check_query
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import BulkId, IdempotencyKey
from videoqa.gateway.routes.answers import BulkBody, BulkList, LinkedPreview
from videoqa.gateway.routes.jobs import describe

__all__ = ["as_keywords", "router"]

router = APIRouter(prefix="/v1/bulk-actions", tags=["Jobs"], dependencies=[Depends(check_query)])


def as_keywords(which: JobFilter) -> FilterKeywords:
    """Returns the fields of a filter as a client takes them."""
    return cast("FilterKeywords", which.model_dump(exclude_none=True))


@router.post("", status_code=202)
@document(
    "start_bulk_action",
    body=Content(BulkBody, examples.BULK_ASKED),
    answers={
        202: Answer(
            "The action, which a gateway carries out.",
            Content(BulkAction, examples.BULK_ACTION),
            headers={"Location": "Path of the action."},
        ),
        200: Answer(
            "What it would change, for `dry_run`.", Content(LinkedPreview, examples.BULK_PREVIEW)
        ),
    },
    errors=("count_changed", "idempotency_conflict"),
)
async def start_bulk(
    request: Request, caller: Submitter, idempotency_key: IdempotencyKey = None
) -> Response:
    """Begins to cancel, retry or purge all jobs that a filter selects, the oldest first, in batches.

    Jobs that come to match after `cut_off` stay as they are. An action without a filter is refused, and so is a purge
    without `expected`, the number of a preview (`dry_run`), or if more jobs match than that. A retried job counts for
    the limits of the key. Each action is in the audit log.
    """
    asked = parse_model(BulkBody, await read_object(request))
    key = parse_idempotency_key(idempotency_key) or asked.idempotency_key
    which = as_keywords(asked.filter)
    if asked.dry_run:
        preview = await caller.client.preview_bulk(asked.action, cut_off=asked.cut_off, **which)
        body = preview.model_dump(mode="json")
        return JSONResponse(body | {"examples": [describe(job) for job in preview.examples]})
    action = await caller.start_bulk(
        asked.action, which, expected=asked.expected, cut_off=asked.cut_off, key=key
    )
    request.app.state.bulk_runner.wake()
    headers = {"location": f"/v1/bulk-actions/{action.id}"}
    return JSONResponse(action.model_dump(mode="json"), 202, headers)


@router.get("")
@document(
    "list_bulk_actions",
    answers={200: Answer("The actions.", Content(BulkList, {"actions": [examples.BULK_ACTION]}))},
)
async def list_bulk(
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most actions.", examples=[20])] = 50,
) -> Response:
    """Lists the newest bulk actions, the last one first; one is kept for 7 days after its end."""
    rows = await caller.client.list_bulk(limit=limit)
    return JSONResponse({"actions": [row.model_dump(mode="json") for row in rows]})


@router.get("/{bulk_id}")
@document(
    "get_bulk_action",
    answers={200: Answer("The action.", Content(BulkAction, examples.BULK_ACTION))},
    errors=("bulk_action_not_found",),
)
async def get_bulk(caller: Reader, bulk_id: BulkId) -> Response:
    """Returns a bulk action and its progress."""
    return JSONResponse((await caller.client.get_bulk(bulk_id)).model_dump(mode="json"))


@router.post("/{bulk_id}/stop")
@document(
    "stop_bulk_action",
    answers={200: Answer("The action.", Content(BulkAction, examples.BULK_STOPPED))},
    errors=("bulk_action_not_found",),
)
async def stop_bulk(caller: Submitter, bulk_id: BulkId) -> Response:
    """Stops a bulk action, unless it has ended; what it has changed stays changed."""
    return JSONResponse((await caller.client.stop_bulk(bulk_id)).model_dump(mode="json"))
