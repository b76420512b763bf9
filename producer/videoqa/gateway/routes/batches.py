"""Batches: create, look at, list and cancel, in the form of OpenAI's API."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from videoqa.errors import IdempotencyConflict, InvalidRequest
from videoqa.gateway.access.caller import Caller, Reader, Submitter
from videoqa.gateway.batches.record import ENDPOINT, Batch, BatchRecord
from videoqa.gateway.batches.schemas import BatchBody, BatchObject, BatchPage
from videoqa.gateway.files.index import FileRecord
from videoqa.gateway.files.names import draw_id
from videoqa.gateway.http.bodies import parse_model, read_object
from videoqa.gateway.http.idempotency import digest_body, is_retry, parse_idempotency_key
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.openai.pages import make_page
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import (
    EXAMPLE_BATCH,
    BatchId,
    IdempotencyKey,
    RetryCount,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1/batches", tags=["OpenAI"])

MOST_INPUT_BYTES = 200_000_000
WINDOW_S = 86_400
_MOST_LISTED = 100


@router.post("")
@document(
    "create_batch",
    body=Content(BatchBody, examples.BATCH_ASKED),
    answers={
        200: Answer(
            "The batch, whose lines are checked next.", Content(BatchObject, examples.BATCH)
        )
    },
    errors=("file_not_found", "file_expired", "wrong_purpose", "idempotency_conflict"),
)
async def create(
    request: Request,
    caller: Submitter,
    idempotency_key: IdempotencyKey = None,
    retry_count: RetryCount = None,
) -> Response:
    """Begins to answer a file of chats, a line each, at the priority of bulk jobs, within 24 hours.

    The key's scope and limits hold for each line.
    """
    body = await read_object(request)
    asked = _parse(body)
    resources = caller.resources
    file = await _find_input(caller, asked.input_file_id)
    now_s = int(time.time())
    expiry = asked.output_expires_after
    record = BatchRecord(
        id=draw_id(time.time(), "batch_"),
        tenant=caller.key.tenant,
        key_id=caller.key.id,
        input_file_id=file.id,
        input_name=file.name,
        input_bytes=file.bytes,
        parts_id=draw_id(time.time()),
        metadata=asked.metadata,
        output_ttl_s=expiry.seconds if expiry is not None else None,
        created_at=now_s,
        expires_at=now_s + WINDOW_S,
    )
    digest = digest_body(body)
    key = parse_idempotency_key(idempotency_key)
    call = ["body", caller.key.id, digest] if key is None else ["key", caller.key.id, key]
    await resources.files.use((file.id,), record.id)
    made = await resources.run(
        lambda: resources.batches.create(
            record,
            call=digest_body(call),
            body=digest,
            joins=key is not None or is_retry(retry_count),
        )
    )
    if made != record.id:
        await resources.files.end_use(file.id, record.id)
    if made is None:
        raise IdempotencyConflict(
            "this Idempotency-Key came with another body before; use a new key for a new batch",
            param="idempotency_key",
        )
    return JSONResponse((await _find(caller, made)).describe())


def _parse(body: dict[str, Any]) -> BatchBody:
    asked = parse_model(BatchBody, body)
    if not asked.is_for_chats:
        raise InvalidRequest(
            f"endpoint: got {asked.endpoint!r:.100}, expected {ENDPOINT}", param="endpoint"
        )
    return asked


async def _find_input(caller: Caller, file_id: str) -> FileRecord:
    try:
        file = await caller.resources.files.get(file_id, caller.key.tenant)
    except HttpError as error:
        raise HttpError(400, error.http_code, error.message, param="input_file_id") from error
    if file.purpose != "batch":
        raise HttpError(
            400,
            "wrong_purpose",
            f"input_file_id: {file.id} was uploaded with the purpose {file.purpose!r}, expected batch",
            param="input_file_id",
        )
    if file.bytes > MOST_INPUT_BYTES:
        raise InvalidRequest(
            f"input_file_id: got a file of {file.bytes:,} bytes, expected at most {MOST_INPUT_BYTES:,}; make several "
            "batches of it",
            param="input_file_id",
        )
    return file


async def _find(caller: Caller, batch_id: str) -> Batch:
    """Returns a batch of the caller's; an unknown one and another tenant's are the same."""
    found: Batch | None = await caller.resources.run(caller.resources.batches.find, batch_id)
    is_own = found is not None and caller.key.tenant in (None, found.record.tenant)
    if found is None or not is_own:
        raise HttpError(
            404, "batch_not_found", f"there is no batch {batch_id!r:.100}", param="batch_id"
        )
    return found


@router.get("")
@document(
    "list_batches",
    answers={200: Answer("A page of batches.", Content(BatchPage, examples.BATCHES))},
)
async def list_batches(
    caller: Reader,
    after: Annotated[
        str | None,
        Query(description="Id of the last batch of the page before.", examples=[EXAMPLE_BATCH]),
    ] = None,
    limit: Annotated[
        int, Query(description="Most batches of a page.", ge=1, le=_MOST_LISTED, examples=[20])
    ] = 20,
) -> Response:
    """Lists the batches, the newest first."""
    store, tenant = caller.resources.batches, caller.key.tenant
    try:
        found, has_more = await caller.resources.run(
            lambda: store.list(tenant, after=after, limit=limit)
        )
    except ValueError as error:
        raise InvalidRequest(
            f"after: got {after!r:.100}, expected the id of a batch", param="after"
        ) from error
    return JSONResponse(make_page([batch.describe() for batch in found], has_more=has_more))


@router.get("/{batch_id}")
@document(
    "get_batch",
    answers={200: Answer("The batch.", Content(BatchObject, examples.BATCH))},
    errors=("batch_not_found",),
)
async def get_batch(caller: Reader, batch_id: BatchId) -> Response:
    """Returns a batch with its counts, its mistakes, and the ids of its files once it has ended."""
    return JSONResponse((await _find(caller, batch_id)).describe())


@router.post("/{batch_id}/cancel")
@document(
    "cancel_batch",
    answers={
        200: Answer(
            "The batch, which ends within a minute.",
            Content(BatchObject, examples.BATCH_CANCELLING),
        )
    },
    errors=("batch_not_found", "batch_ended"),
)
async def cancel_batch(caller: Submitter, batch_id: BatchId) -> Response:
    """Cancels a batch; lines that are answered already are in its output file, the others in its error file."""
    await _find(caller, batch_id)
    status = await caller.resources.run(caller.resources.batches.cancel, batch_id)
    if status not in ("ok", "cancelling", "cancelled"):
        raise HttpError(
            409,
            "batch_ended",
            f"batch {batch_id} is {status}, and cannot be cancelled any more",
            headers={"x-should-retry": "false"},
        )
    return JSONResponse((await _find(caller, batch_id)).describe())
