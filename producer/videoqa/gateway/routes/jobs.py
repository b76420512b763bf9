"""Jobs: submit, look, wait, follow, cancel, retry, list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from videoqa import errors
from videoqa.contract import (
    Event,
    Job,
    JobCount,
    JobRequest,
    JobTimeline,
    Result,
    parse_request,
)
from videoqa.gateway.access.caller import Caller, Reader, Submitter
from videoqa.gateway.http.bodies import check_count, read_object, read_parsed
from videoqa.gateway.http.etags import has_tag, make_tag
from videoqa.gateway.http.event_stream import EventStream, ServerEvent, wait_until_gone
from videoqa.gateway.http.idempotency import derive_key, digest_body, parse_idempotency_key
from videoqa.gateway.http.problems import HttpError, describe_row_error
from videoqa.gateway.http.queries import check_query
from videoqa.gateway.http.waiting import parse_prefer, parse_wait
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import EVENT_STREAM, TEXT, Answer, Content, document
from videoqa.gateway.reference.parameters import (
    TAG,
    Cursor,
    IdempotencyKey,
    IfNoneMatch,
    JobId,
    LastEventId,
    Prefer,
    Wait,
)
from videoqa.gateway.resources import Resources
from videoqa.gateway.routes.answers import (
    SET_BY_GATEWAY,
    JobBody,
    JobEvent,
    JobLinks,
    JobList,
    JobsBody,
    LinkedJob,
    SubmittedRows,
)
from videoqa.gateway.routes.filters import FilterQuery
from videoqa.gateway.routes.result_formats import MEDIA_TYPES, ResultFormat, render_result
from videoqa.telemetry.tracing import trace_submit

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"], dependencies=[Depends(check_query)])

MOST_AT_ONCE = 1000
MOST_VALUES_AT_ONCE = 200_000
"""Values of the requests of that many jobs."""
MOST_PAGE_BYTES = 8 << 20
"""Length of the jobs of a page after which it ends, if it has their requests."""
READ_AT_ONCE = 32
"""Jobs that are read with their requests at once, each of which may have 1 MiB."""


def describe(job: Job, result: Result | None = None) -> dict[str, Any]:
    """Returns a job as JSON, with links; and its result, if the caller waited for it."""
    body = job.model_dump(mode="json")
    body["links"] = JobLinks.make(job.id).model_dump()
    if result is not None:
        body["result"] = result.model_dump(mode="json")
    return body


def dump_jobs(jobs: Sequence[Job | None]) -> list[str]:
    """Returns each job as the text of its JSON; long ones take a thread's time, not the loop's."""
    return [
        json.dumps(
            None if job is None else describe(job), ensure_ascii=False, separators=(",", ":")
        )
        for job in jobs
    ]


def parse_body(body: dict[str, Any], where: str = "") -> JobRequest:
    """Returns the request of a body; refuses what the gateway alone sets.

    Arguments:
        where: place of the body in a larger one, before the `param` of an error.
    """
    for name in SET_BY_GATEWAY:
        if name in body:
            raise errors.InvalidRequest(
                f"{name}: got a value, expected none: the API key decides it",
                param=f"{where}{name}",
            )
    try:
        check_count(body)
    except ValueError as error:
        raise errors.InvalidRequest(str(error), param=where.removesuffix(".") or None) from error
    try:
        return parse_request(json.dumps(body), strict=True)
    except errors.RequestError as error:
        param = where + error.param if error.param else None
        raise type(error)(error.message, param=param) from error


_LOCATION = {"Location": "Path of the job."}
_APPLIED = {"Preference-Applied": "The preference that was followed."}


@router.post("", status_code=202)
@document(
    "submit_job",
    body=Content(JobBody, examples.ASKED),
    answers={
        202: Answer(
            "The job, which waits for a worker.",
            Content(LinkedJob, examples.QUEUED_JOB),
            headers=_LOCATION,
        ),
        200: Answer(
            "The finished job, for a caller that preferred to wait.",
            Content(LinkedJob, examples.DONE_JOB),
            headers=_LOCATION | _APPLIED,
        ),
    },
    errors=(
        "empty_question",
        ("file_expired", 400),
        ("file_not_found", 400),
        "idempotency_conflict",
        "input_not_allowed",
        "mark_mismatch",
        "no_media",
        "queue_full",
        "wrong_purpose",
    ),
)
async def submit(
    request: Request,
    caller: Submitter,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Submits a job; with `Prefer: wait=30` the answer is the finished job, if it ends in that time."""
    checked = await read_parsed(request, partial(_parse_keyed, header=idempotency_key))
    wait_s = parse_prefer(",".join(request.headers.getlist("prefer")))
    job = await caller.submit(checked)
    return await answer(request, caller, job, wait_s, preferred=wait_s > 0)


def _parse_keyed(body: dict[str, Any], header: str | None) -> JobRequest:
    """Returns the request of a body, with the idempotency key of the header."""
    key = parse_idempotency_key(header)
    if key is not None and body.setdefault("idempotency_key", key) != key:
        raise errors.InvalidRequest(
            "idempotency_key: got another one than in the header Idempotency-Key, expected the same, or one of both",
            param="idempotency_key",
        )
    return parse_body(body)


async def answer(
    request: Request, caller: Caller, job: Job, wait_s: float, *, preferred: bool = False
) -> Response:
    """Waits for the job as long as the caller wants to, and answers with it: 200 if it is final, else 202."""
    if wait_s > 0 and not job.final:
        job = await wait_for(request, caller, job, wait_s)
    result = None
    if preferred and job.state == "succeeded":
        with suppress(errors.OutputError):  # the job's id is not to be lost; /result says why
            result = await caller.client.result(job.id)
    headers = {"location": f"/v1/jobs/{job.id}"}
    if preferred:
        headers["preference-applied"] = f"wait={wait_s:g}"
    return JSONResponse(describe(job, result), 200 if job.final and preferred else 202, headers)


async def wait_for(request: Request, caller: Caller, job: Job, wait_s: float) -> Job:
    """Waits until the job is final, the time is over, the caller leaves, or the gateway stops; returns the job then."""
    resources = cast(Resources, request.app.state.resources)
    waiting = asyncio.ensure_future(caller.client.wait(job.id, timeout_s=wait_s))
    others: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(resources.stop.wait()),
        asyncio.ensure_future(wait_until_gone(request.receive)),
    ]
    try:
        await asyncio.wait([waiting, *others], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
    except errors.WaitTimeout:
        pass
    finally:
        for task in (waiting, *others):
            task.cancel()
    return await caller.client.get(job.id)


@router.post(":batch", status_code=202)
@document(
    "submit_jobs",
    body=Content(
        JobsBody,
        {
            "jobs": [
                examples.ASKED,
                examples.ASKED | {"questions": ["Is it like this one: <image>"]},
            ]
        },
    ),
    answers={
        202: Answer(
            "The jobs, or errors, of all rows.",
            Content(
                SubmittedRows,
                {
                    "jobs": [
                        {"job": examples.QUEUED_JOB},
                        {
                            "error": {
                                "code": "mark_mismatch",
                                "message": "question q1 places 0 <video> and 1 <image> marks, the job has 1 videos "
                                "and 0 images; place each input once, or leave the marks out",
                                "param": "jobs.1.questions.0.text",
                            }
                        },
                    ]
                },
            ),
        )
    },
    errors=("idempotency_conflict",),
)
async def submit_many(
    request: Request, caller: Submitter, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submits up to 1,000 jobs; each row of the answer has a job, or the error of this request.

    With an idempotency key the call may be repeated: rows that became jobs are the same jobs then, and others are tried
    again.
    """
    body = await read_object(request, most_values=MOST_VALUES_AT_ONCE)
    rows = body.get("jobs")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_AT_ONCE or body.keys() != {"jobs"}:
        raise errors.InvalidRequest(
            f'expected {{"jobs": [...]}} with 1 to {MOST_AT_ONCE} requests, and nothing else',
            param="jobs",
        )
    key = parse_idempotency_key(idempotency_key)
    if key is not None:
        resources = cast(Resources, request.app.state.resources)
        tenant, digest = caller.key.tenant, digest_body(body)
        await resources.run(resources.calls.begin, tenant, "POST /v1/jobs:batch", key, digest)
    with trace_submit(None, count=len(rows)):
        return JSONResponse({"jobs": await _submit_rows(caller, rows, key)}, 202)


async def _submit_rows(
    caller: Caller, rows: Sequence[Any], key: str | None
) -> list[dict[str, Any]]:
    """Submits rows one by one; returns the job or the error of each."""
    found: list[dict[str, Any]] = []
    for n, row in enumerate(rows):
        await asyncio.sleep(0)  # a refused row waits for nothing else, and there are other callers
        try:
            if not isinstance(row, dict):
                raise errors.InvalidRequest(
                    f"jobs.{n}: got {json.dumps(row):.80}, expected an object", param=f"jobs.{n}"
                )
            if key is not None and row.get("idempotency_key") is None:
                row["idempotency_key"] = derive_key("batch", key, n)
            job = await caller.submit(parse_body(row, f"jobs.{n}."), f"jobs.{n}.")
            found.append({"job": describe(job)})
        except (errors.RequestError, errors.QueueFull, errors.RateLimited, HttpError) as error:
            found.append({"error": describe_row_error(error)})
    return found


@router.get("")
@document(
    "list_jobs",
    answers={
        200: Answer(
            "A page of jobs.",
            Content(
                JobList,
                {
                    "jobs": [examples.QUEUED_JOB],
                    "unreadable": [],
                    "looked_at": 1,
                    "next_cursor": None,
                    "has_more": False,
                },
            ),
        )
    },
)
async def list_jobs(
    caller: Reader,
    which: FilterQuery,
    cursor: Cursor = None,
    limit: Annotated[
        int, Query(ge=1, le=1000, description="Most jobs of a page.", examples=[20])
    ] = 100,
    include_request: Annotated[
        bool,
        Query(
            description="Also each job's request. A page ends after some 8 MB then: it may be short, and yet have a "
            "`next_cursor`.",
            examples=[False],
        ),
    ] = False,
) -> Response:
    """Lists jobs, newest first; filters combine.

    A page ends after 10,000 jobs that were looked at, 2,000 with `q`: it may be short, or empty, and yet have a
    `next_cursor`. Dead letters, which have a `code`, come by the time of their failure.
    """
    rows: list[str] = []
    unreadable: list[str] = []
    length = looked_at = 0
    while True:
        most = limit - len(rows) - len(unreadable)
        if include_request:
            most = min(most, READ_AT_ONCE)
        page = await caller.client.list(
            cursor=cursor, limit=most, include_request=include_request, **which
        )
        found = await run_in_threadpool(dump_jobs, page.jobs)
        rows += found
        unreadable += page.unreadable
        length += sum(map(len, found))
        looked_at += page.looked_at
        cursor = page.next_cursor
        is_short = len(page.jobs) + len(page.unreadable) < most
        is_full = len(rows) + len(unreadable) >= limit or length >= MOST_PAGE_BYTES
        if cursor is None or is_short or is_full:
            break
    rest = json.dumps(
        {
            "unreadable": unreadable,
            "looked_at": looked_at,
            "next_cursor": cursor,
            "has_more": cursor is not None,
        }
    )
    return Response(f'{{"jobs":[{",".join(rows)}],{rest[1:]}', media_type="application/json")


@router.get("/count")
@document(
    "count_jobs",
    answers={
        200: Answer(
            "The number.", Content(JobCount, {"count": 1204, "is_exact": True, "looked_at": 0})
        )
    },
)
async def count_jobs(caller: Reader, which: FilterQuery) -> Response:
    """Counts the jobs that a filter of `GET /v1/jobs` selects.

    The number is exact where an index has it: without a filter, or with a state in which jobs end, a tag, a model or a
    code alone. Otherwise it is that of the first 10,000 jobs that are looked at, or 2,000 with `q`; `is_exact` is false
    if there may be more.
    """
    found = await caller.client.count(**which)
    return JSONResponse(found.model_dump(mode="json"))


@router.get("/{job_id}")
@document(
    "get_job",
    answers={
        200: Answer(
            "The job, with its request.",
            Content(LinkedJob, examples.SEEN_JOB),
            headers=TAG,
        ),
        304: Answer("The job is as the caller has it.", headers=TAG),
    },
)
async def get(
    request: Request,
    caller: Reader,
    job_id: JobId,
    wait: Wait = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Returns a job as it is now, or once it is final within `wait` seconds."""
    job = await caller.client.get(job_id, include_request=True)
    wait_s = parse_wait(wait)
    if wait_s > 0 and not job.final:
        job = await wait_for(request, caller, job, wait_s)
        job = await caller.client.get(job_id, include_request=True)
    body = describe(job)
    return answer_tagged(
        json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        "application/json",
        if_none_match,
    )


def answer_tagged(text: str, media_type: str, if_none_match: str | None) -> Response:
    """Answers with a text and its ETag, or without the text if the caller has it."""
    tag = make_tag(text.encode())
    if has_tag(tag, if_none_match):
        return Response(status_code=304, headers={"etag": tag})
    return Response(text, media_type=media_type, headers={"etag": tag})


@router.get("/{job_id}/result")
@document(
    "get_result",
    answers={
        200: Answer(
            "The result.",
            Content(Result, examples.RESULT),
            Content(TEXT, examples.RESULT_TEXT, "text/plain"),
            Content(TEXT, examples.RESULT_VTT, "text/vtt"),
            Content(TEXT, examples.RESULT_SRT, "application/x-subrip"),
            headers=TAG,
        ),
        304: Answer("The result is as the caller has it.", headers=TAG),
    },
    errors=("job_failed", "job_not_finished", "output_not_found", "output_unavailable"),
)
async def get_result(
    caller: Reader,
    job_id: JobId,
    format: Annotated[
        ResultFormat,
        Query(
            description="`json`; `text` for the bare answers; `vtt` or `srt` for subtitles: a cue for each segment, or "
            "one for the clip that was asked about.",
            examples=["json"],
        ),
    ] = "json",
    number: Annotated[
        int,
        Query(
            alias="input",
            ge=0,
            description="Number of the input, from 0, about which the subtitles are.",
            examples=[0],
        ),
    ] = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Returns the result of a succeeded job, as JSON, plain text or subtitles."""
    result = await caller.client.result(job_id)
    text = render_result(result, format, number)
    return answer_tagged(text, MEDIA_TYPES[format], if_none_match)


_STREAMED: dict[str, Any] = {
    "anyOf": [{"$ref": f"#/components/schemas/{one.__name__}"} for one in (JobEvent, LinkedJob)]
}


@router.get("/{job_id}/events")
@document(
    "follow_job",
    answers={
        200: Answer(
            "Server-sent events, each with a `JobEvent` as its data; in a `snapshot` it is the job.",
            Content(_STREAMED, examples.EVENTS, EVENT_STREAM),
        ),
        204: Answer("There are no events after `Last-Event-ID`, and there will be none."),
    },
)
async def follow(
    request: Request,
    caller: Reader,
    job_id: JobId,
    last_event_id: LastEventId = None,
) -> Response:
    """Streams the job's events as server-sent events, from the first or after `Last-Event-ID`, to its end.

    If that id is no event of the job, or the events after it are not kept any more, the first event is a `snapshot`
    with the job as it is now, and all events that are kept follow. A stream that is resumed after the job's last event
    is 204, at which browsers stop to come back.
    """
    resources = cast(Resources, request.app.state.resources)
    job = await caller.client.get(job_id)  # an unknown id has a status of its own
    after = (last_event_id or "").strip() or "0"
    ledger = resources.ledger
    has_all = after == "0" or await resources.run(ledger.has_event, job_id, after)
    is_resumed = has_all and after != "0"
    if (
        job.final
        and is_resumed
        and not await resources.run(ledger.read_events, job_id, after=after)
    ):
        return Response(status_code=204)
    events = caller.client.events(job_id, after=after if has_all else "0")
    snapshot = None if has_all else ServerEvent(describe(job), event="snapshot")
    return EventStream(_encode(events, snapshot), stop=resources.stop)


async def _encode(
    events: AsyncIterator[Event], snapshot: ServerEvent | None
) -> AsyncIterator[ServerEvent]:
    if snapshot is not None:
        yield snapshot
    async for event in events:
        yield ServerEvent(
            event.model_dump(mode="json", exclude_none=True), id=event.id, event=event.type
        )


@router.get("/{job_id}/timeline")
@document(
    "get_timeline",
    answers={200: Answer("The job and its attempts.", Content(JobTimeline, examples.TIMELINE))},
)
async def get_timeline(caller: Reader, job_id: JobId) -> Response:
    """Returns a job with its attempts: worker, seconds by stage, failure and next step of each, the oldest in front."""
    found = await caller.client.timeline(job_id)
    return JSONResponse(found.model_dump(mode="json"))


@router.post("/{job_id}/cancel")
@document(
    "cancel_job",
    answers={200: Answer("The job.", Content(LinkedJob, examples.CANCELED_JOB))},
)
async def cancel(caller: Submitter, job_id: JobId) -> Response:
    """Cancels a job, unless it is final already, and returns it as it is then."""
    return JSONResponse(describe(await caller.client.cancel(job_id)))


@router.post("/{job_id}/retry", status_code=202)
@document(
    "retry_job",
    answers={202: Answer("The job, which waits again.", Content(LinkedJob, examples.QUEUED_JOB))},
    errors=("not_retryable", "queue_full"),
)
async def retry(
    request: Request, caller: Submitter, job_id: JobId, idempotency_key: IdempotencyKey = None
) -> Response:
    """Queues a failed, canceled or expired job again.

    With an idempotency key the call may be repeated: the job is queued again once, and the answer is the job as it is.
    """
    key = parse_idempotency_key(idempotency_key)
    if key is None:
        return JSONResponse(describe(await caller.retry(job_id)), 202)
    resources = cast(Resources, request.app.state.resources)
    call = caller.key.tenant, f"POST /v1/jobs/{job_id}/retry", key
    await caller.client.get(job_id)  # an unknown id is not noted
    if not await resources.run(resources.calls.begin, *call):
        return JSONResponse(describe(await caller.client.get(job_id)), 202)
    try:
        return JSONResponse(describe(await caller.retry(job_id)), 202)
    except errors.VideoQAError as error:
        if not isinstance(error, errors.RedisUnavailable):  # after which the job may be queued
            await resources.run(resources.calls.forget, *call)
        raise


@router.delete("/{job_id}", status_code=204)
@document("delete_job", answers={204: Answer("The record is gone.")}, errors=("not_retryable",))
async def delete(caller: Submitter, job_id: JobId) -> Response:
    """Deletes the record of a job that has ended, with its events and the result in it; its id is 410 from then on.

    A queued or running job is refused with 409: cancel it first. Result objects in storage stay, and so does what
    `/v1/usage` counted.
    """
    await caller.client.purge(job_id)
    return Response(status_code=204)


def refuse_unknown(request: Request) -> HttpError:
    path = request.scope["path"]
    return HttpError(404, "route_not_found", f"there is no route {path!r:.200}; /docs lists all")
