"""Many jobs at once, by their ids: look, and follow on one connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from videoqa import errors
from videoqa.async_client import AsyncClient
from videoqa.contract import Event, JobState
from videoqa.gateway.access.caller import Reader
from videoqa.gateway.http.bodies import read_object
from videoqa.gateway.http.event_stream import EventStream, ServerEvent
from videoqa.gateway.http.problems import describe_row_error
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import EVENT_STREAM, Answer, Content, document
from videoqa.gateway.reference.parameters import EXAMPLE_JOB
from videoqa.gateway.resources import Resources
from videoqa.gateway.routes.answers import JobEvent, LinkedJob, RefusedRow, RowError
from videoqa.gateway.routes.jobs import READ_AT_ONCE, dump_jobs

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

MOST_JOBS = 1000
MOST_ANSWER_BYTES = 64 << 20
"""Longest answer with the requests of jobs."""
WAITING_EVENTS = 100
"""Events of a stream that wait for a caller who reads slowly; the jobs' own readers wait then."""
_EVENT_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")
_OF_A_JOB = (errors.LookupFailed, errors.ConfigurationError)
"""Errors of one job, as with another type of value under one of its keys; the other jobs are followed on."""


class JobIds(BaseModel, extra="forbid"):
    """Ids of jobs."""

    ids: list[str] = Field(min_length=1, max_length=MOST_JOBS)
    include_request: bool = False
    """Also each job's request."""


class FoundJobs(BaseModel):
    """Jobs in the order of their ids; null: unknown, expired or unreadable."""

    jobs: list[LinkedJob | None]


class JobIdsOnly(BaseModel, extra="forbid"):
    """Ids of jobs."""

    ids: list[str] = Field(min_length=1, max_length=MOST_JOBS)


class JobStates(BaseModel):
    """States in the order of the ids; null: unknown or expired."""

    states: list[JobState | None]


class Position(BaseModel, extra="forbid"):
    """A job, and the last of its events that the caller has."""

    id: str
    after: str = Field(default="0", pattern=f"^{_EVENT_ID.pattern}$")


class Positions(BaseModel, extra="forbid"):
    """The jobs to follow."""

    jobs: list[Position] = Field(min_length=1, max_length=MOST_JOBS)


class JobEvents(BaseModel):
    """Events of one job."""

    events: list[Event]


class FollowedEvent(BaseModel):
    """An event of one of many jobs, the end of its events, or the error for which it is not followed."""

    job_id: str
    event: JobEvent | None = Field(default=None, exclude_if=lambda event: event is None)
    error: RowError | None = Field(default=None, exclude_if=lambda error: error is None)


class FoundEvents(BaseModel):
    """Events, or errors, in the order of the jobs."""

    jobs: list[JobEvents | RefusedRow]


_QUEUED = Event(
    id="0-1", type="state", state="queued", at=datetime(2026, 11, 30, 9, 30, tzinfo=UTC)
)
_POSITIONS = {"jobs": [{"id": EXAMPLE_JOB, "after": "0"}]}


def read_ids(body: dict[str, Any], *more: str) -> list[str]:
    """Returns the ids of a body; raises InvalidRequest."""
    ids = body.get("ids")
    if (
        not isinstance(ids, list)
        or not 1 <= len(ids) <= MOST_JOBS
        or not all(isinstance(one, str) for one in ids)
        or body.keys() - {"ids", *more}
    ):
        raise errors.InvalidRequest(
            f'expected {{"ids": [...]}} with 1 to {MOST_JOBS} ids of jobs, and nothing else',
            param="ids",
        )
    return ids


def read_positions(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the ids of a body's jobs, and the events after which each is followed; raises InvalidRequest."""
    rows = body.get("jobs")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_JOBS or body.keys() != {"jobs"}:
        raise errors.InvalidRequest(
            f'expected {{"jobs": [{{"id": ..., "after": ...}}]}} with 1 to {MOST_JOBS} jobs, and nothing else',
            param="jobs",
        )
    found = []
    for n, row in enumerate(rows):
        where = f"jobs.{n}"
        if not isinstance(row, dict) or row.keys() - {"id", "after"}:
            raise errors.InvalidRequest(
                f'{where}: expected {{"id": ..., "after": ...}}', param=where
            )
        job_id, after = row.get("id"), row.get("after", "0")
        if not isinstance(job_id, str):
            raise errors.InvalidRequest(f"{where}.id: expected text", param=f"{where}.id")
        if not isinstance(after, str) or not _EVENT_ID.fullmatch(after):
            raise errors.InvalidRequest(
                f"{where}.after: expected the id of an event, or 0", param=f"{where}.after"
            )
        found.append((job_id, after))
    return found


@router.post(":get")
@document(
    "get_jobs",
    body=Content(JobIds, {"ids": [EXAMPLE_JOB]}),
    answers={200: Answer("The jobs.", Content(FoundJobs, {"jobs": [examples.QUEUED_JOB]}))},
)
async def get_many(request: Request, caller: Reader) -> Response:
    """Returns up to 1,000 jobs by their ids, without the position and the reason why a job waits."""
    body = await read_object(request)
    ids = read_ids(body, "include_request")
    include_request = body.get("include_request", False)
    if not isinstance(include_request, bool):
        raise errors.InvalidRequest(
            "include_request: expected true or false", param="include_request"
        )
    at_once = READ_AT_ONCE if include_request else MOST_JOBS
    rows: list[str] = []
    length = 0
    for start in range(0, len(ids), at_once):
        jobs = await caller.client.get_many(
            ids[start : start + at_once], include_request=include_request
        )
        found = await run_in_threadpool(dump_jobs, jobs)
        rows += found
        length += sum(map(len, found))
        if length > MOST_ANSWER_BYTES:
            raise errors.InvalidRequest(
                f"ids: got jobs whose requests have more than {MOST_ANSWER_BYTES >> 20} MiB; ask for fewer at once, "
                "or without include_request",
                param="ids",
            )
    return Response(f'{{"jobs":[{",".join(rows)}]}}', media_type="application/json")


@router.post(":states")
@document(
    "get_states",
    body=Content(JobIdsOnly, {"ids": [EXAMPLE_JOB]}),
    answers={200: Answer("The states.", Content(JobStates, {"states": ["queued"]}))},
)
async def get_states(request: Request, caller: Reader) -> Response:
    """Returns the states of up to 1,000 jobs by their ids."""
    ids = read_ids(await read_object(request))
    return JSONResponse({"states": await caller.client.get_states(ids)})


@router.post(":events")
@document(
    "get_events",
    body=Content(Positions, _POSITIONS),
    answers={
        200: Answer(
            "The events of each job.",
            Content(
                FoundEvents,
                {"jobs": [{"events": [_QUEUED.model_dump(mode="json")]}]},
            ),
        )
    },
)
async def get_events(request: Request, caller: Reader) -> Response:
    """Returns the events of up to 1,000 jobs so far, each after the last one that the caller has."""
    positions = read_positions(await read_object(request))
    rows = await asyncio.gather(
        *(_read_events(caller.client, job_id, after) for job_id, after in positions)
    )
    return JSONResponse({"jobs": rows})


async def _read_events(client: AsyncClient, job_id: str, after: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    try:
        async for event in client.events(job_id, after=after, timeout_s=0):
            found.append(event.model_dump(mode="json"))
    except errors.WaitTimeout:
        pass
    except _OF_A_JOB as error:
        return {"error": describe_row_error(error)}
    return {"events": found}


@router.post(":follow")
@document(
    "follow_jobs",
    body=Content(Positions, _POSITIONS),
    answers={
        200: Answer(
            "Server-sent events: `event` with a `JobEvent` of a job, `end` after its last one, and `error` for a job "
            "that cannot be followed; each names the job as `job_id`.",
            Content(
                FollowedEvent,
                f'event: event\ndata: {{"job_id": "{EXAMPLE_JOB}", "event": '
                f"{_QUEUED.model_dump_json(exclude_none=True)}}}\n\n"
                f'event: end\ndata: {{"job_id": "{EXAMPLE_JOB}"}}\n\n',
                EVENT_STREAM,
            ),
        )
    },
)
async def follow_many(request: Request, caller: Reader) -> EventStream:
    """Streams the events of up to 1,000 jobs on one connection; who comes back names the last event of each job."""
    positions = read_positions(await read_object(request))
    resources = cast(Resources, request.app.state.resources)
    return EventStream(_merge(caller.client, positions), stop=resources.stop)


async def _merge(
    client: AsyncClient, positions: Sequence[tuple[str, str]]
) -> AsyncIterator[ServerEvent]:
    """Follows all jobs at once, until the last has ended."""
    queue: asyncio.Queue[ServerEvent | Exception] = asyncio.Queue(WAITING_EVENTS)
    tasks = [
        asyncio.create_task(_follow_one(client, job_id, after, queue))
        for job_id, after in dict(positions).items()
    ]
    open_jobs = len(tasks)
    try:
        while open_jobs:
            found = await queue.get()
            if isinstance(found, Exception):
                raise found
            open_jobs -= found.event in ("end", "error")
            yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow_one(
    client: AsyncClient, job_id: str, after: str, queue: asyncio.Queue[ServerEvent | Exception]
) -> None:
    try:
        async for event in client.events(job_id, after=after):
            data = {"job_id": job_id, "event": event.model_dump(mode="json", exclude_none=True)}
            await queue.put(ServerEvent(data, event="event"))
        await queue.put(ServerEvent({"job_id": job_id}, event="end"))
    except _OF_A_JOB as error:
        await queue.put(
            ServerEvent({"job_id": job_id, "error": describe_row_error(error)}, event="error")
        )
    except Exception as error:  # noqa: BLE001 - ends the whole stream; who follows it comes back
        await queue.put(error)
