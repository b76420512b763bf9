"""Validation: checks a request as a submit does, and tells its job's cost, or the frames that it would take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from videoqa.contract import JobRequest
from videoqa.errors import InvalidRequest
from videoqa.gateway.access.caller import Submitter
from videoqa.gateway.http.bodies import read_parsed
from videoqa.gateway.http.event_stream import wait_until_gone
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.resources import Resources
from videoqa.gateway.routes.answers import JobBody, JobEstimate, JobPreview, PreviewBody
from videoqa.gateway.routes.jobs import parse_body

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])


ANYTHING = "-"
"""Question of a preview that asks nothing yet."""


@router.post("/validate")
@document(
    "validate_job",
    body=Content(JobBody, examples.ASKED),
    answers={200: Answer("The request is valid.", Content(JobEstimate, examples.ESTIMATE))},
    errors=("empty_question", "input_not_allowed", "mark_mismatch", "no_media"),
)
async def validate(request: Request, caller: Submitter) -> Response:
    """Checks a request as a submit does, and estimates its job's frames, tokens and bytes; submits nothing.

    A request that is refused has the error of a submit. An input that cannot be read has its own `error`, and the
    request is still valid: the input may be there when its job runs. Where `videoqa-worker` is not installed beside
    the gateway, or the inputs' servers are too slow, `estimated` is false and `reason` tells why.
    """
    checked = await caller.check(await read_parsed(request, parse_body))
    resources = cast(Resources, request.app.state.resources)
    found: dict[str, Any] = await resources.estimator.estimate(
        checked, resources.settings.gateway_validate_s
    )
    estimate = JobEstimate.model_validate({"estimated": "inputs" in found, **found})
    return JSONResponse(estimate.model_dump(mode="json"))


@router.post(":preview")
@document(
    "preview_job",
    body=Content(PreviewBody, examples.PREVIEWED),
    answers={
        200: Answer("The frames, as far as there are any.", Content(JobPreview, examples.PREVIEW))
    },
    errors=(
        "empty_question",
        ("file_expired", 400),
        ("file_not_found", 400),
        "input_not_allowed",
        "mark_mismatch",
        "no_media",
        "wrong_purpose",
    ),
)
async def preview(request: Request, caller: Submitter) -> Response:
    """Takes the frames that a job would take, and returns them as thumbnails on one JPEG; submits nothing.

    The frames are chosen and decoded by the code of a worker, in confined processes. A preview ends with its call, and
    has the bounds of an estimate: 64 thumbnails, 256 MiB of an input, two previews at a time of one key. Where none can
    be made, `jpeg` is null, and `reason` or the `error` of an input tells why.
    """
    body = await read_parsed(request, parse_preview)
    checked = await caller.check(body)
    resources = cast(Resources, request.app.state.resources)
    looking = resources.estimator.preview(
        checked, resources.settings.gateway_validate_s, caller.key.id
    )
    found = await _end_with_caller(request, looking)
    if checked.questions[0].text == ANYTHING:
        found.pop("prompt_tokens", None)
    answer = JobPreview.model_validate({"estimated": "inputs" in found, **found})
    return JSONResponse(answer.model_dump(mode="json"))


def parse_preview(body: dict[str, Any]) -> JobRequest:
    """Returns the request of a body that may ask nothing yet."""
    known = PreviewBody.model_fields
    for name in body:
        if name not in known:
            raise InvalidRequest(
                f"{name:.100}: unknown field, expected one of {', '.join(known)}: the others change no frame",
                param=f"{name:.100}",
            )
    given = {name: value for name, value in body.items() if value is not None}
    return parse_body({"questions": [ANYTHING], **given})


async def _end_with_caller(request: Request, looking: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Returns what is found, or nothing once the caller has left, for whom nothing is decoded any more."""
    found = asyncio.ensure_future(looking)
    leaving = asyncio.ensure_future(wait_until_gone(request.receive))
    try:
        await asyncio.wait([found, leaving], return_when=asyncio.FIRST_COMPLETED)
        return found.result() if found.done() else {"reason": "too_slow"}
    finally:
        found.cancel()
        leaving.cancel()
