"""The page of a job: its answers beside the frames that the model saw, its attempts, inputs, and what can be done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from videoqa import errors
from videoqa.contract import Image, Job, Result, Segment, SourceInfo, Video, describe_state
from videoqa.gateway.access.caller import Caller, Reader, Submitter
from videoqa.gateway.dashboard.frame import (
    PageRouter,
    leave_page,
    make_link,
    read_form,
    show_page,
    take_snapshot,
)
from videoqa.gateway.dashboard.job_view import (
    ANSWERS_A_PAGE,
    MOST_LINK,
    MOST_RAW,
    FrameTile,
    InputView,
    JobView,
    count_segments,
    draw_attempt,
    draw_segments,
    draw_tile,
    dump_raw,
    format_instant,
    group_tiles,
    list_tiles,
    make_budget,
    name_input,
)
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.reference.parameters import JobId

__all__ = ["pictures", "router"]

router = PageRouter()
pictures = APIRouter(include_in_schema=False)
"""Routes whose answers are no pages."""

CHECKED_S = 1.5
"""Time in which a store tells if an input has changed; afterwards it is unknown."""


@router.get("/jobs/{job_id}")
async def show_job(
    request: Request,
    caller: Reader,
    job_id: JobId,
    part: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """Shows a job; `part` is the page of its segments, or of its answers."""
    view = await take_snapshot(caller, "job", partial(_read, caller, job_id), job_id)
    result = view.result
    segments = result.segments if result else ()
    answers = result.answers if result else ()
    size = count_segments(result) if segments else ANSWERS_A_PAGE
    first = (part - 1) * size
    count = len(segments) or len(answers)
    tiles = list_tiles(result) if result else []
    shown = segments[first : first + size]
    budget = make_budget(len(tiles), shown)
    return show_page(
        request,
        "job.html",
        view=view,
        player=view.player,
        trace_url=_find_trace(caller, view.job.trace_id),
        sheet_url=make_link(request, "/v1/jobs/{job_id}/sheet", job_id=job_id),
        job=view.job,
        result=result,
        part=part,
        parts=max(1, -(-count // size)),
        first=first,
        segments=shown,
        answers=answers if segments else answers[first : first + ANSWERS_A_PAGE],
        tiles=tiles,
        segment_tiles=_pick(group_tiles(result.segments if result else (), tiles), shown),
        hides_text=caller.resources.settings.hide_text,
        may_change=caller.key.may("submit"),
        raw_job=dump_raw(view.job.model_dump(mode="json")),
        raw_result=dump_raw(result.model_dump(mode="json")) if result else None,
        predicate=describe_state(view.job.state),
        cut=budget.cut,
        instant=format_instant,
        most_raw=MOST_RAW,
        draw_attempt=draw_attempt,
        draw_segments=draw_segments,
        draw_tile=draw_tile,
    )


def _find_trace(caller: Caller, trace_id: str | None) -> str | None:
    """Returns the address of the job's trace in the operator's viewer; None: there is none."""
    template = caller.resources.settings.trace_url
    if template is None or trace_id is None:
        return None
    return template.replace("{trace_id}", quote(trace_id, safe=""))


def _pick(
    tiles: dict[int, list[FrameTile]], segments: Sequence[Segment]
) -> dict[int, list[FrameTile]]:
    """Returns the tiles of these segments."""
    return {one.number: tiles[one.number] for one in segments if one.number in tiles}


async def _read(caller: Caller, job_id: str) -> JobView:
    timeline, job = await asyncio.gather(
        caller.client.timeline(job_id), caller.client.get(job_id, include_request=True)
    )
    result, why = None, ""
    if job.state == "succeeded":
        try:
            result = await caller.client.result(job_id)
        except (errors.OutputError, errors.LookupFailed) as error:
            why = error.message
    return JobView(timeline, job, await _list_inputs(caller, job, result), result, why)


async def _list_inputs(caller: Caller, job: Job, result: Result | None) -> tuple[InputView, ...]:
    inputs = job.request.inputs if job.request else ()
    sources: tuple[SourceInfo | None, ...] = result.sources if result else ()
    if len(sources) != len(inputs):
        sources = (None,) * len(inputs)
    return tuple(
        await asyncio.gather(
            *(
                _describe_input(caller, number, one, source)
                for number, (one, source) in enumerate(zip(inputs, sources, strict=True))
            )
        )
    )


async def _describe_input(
    caller: Caller, number: int, given: Video | Image, source: SourceInfo | None
) -> InputView:
    resources = caller.resources
    url = given.url
    ids = resources.files.urls.find(url)
    is_object = not ids and resources.media.allows(url)
    has_changed, name = None, name_input(url)
    if ids:
        url, has_changed = ids[0], False  # the bytes of a file never change
        name = await _find_filename(caller, ids[0])
    elif is_object and source is not None and source.etag:
        has_changed = await _has_changed(caller, url, source.etag)
    clip = ""
    if isinstance(given, Video) and (given.start is not None or given.end is not None):
        end = "the end" if given.end is None else format_instant(given.end)
        clip = f"{format_instant(given.start or 0.0)} to {end}"
    return InputView(
        number=number,
        kind=given.kind,
        url=url,
        name=name,
        clip=clip,
        source=source,
        is_playable=bool(ids) or is_object,
        is_link=url.startswith(("http://", "https://")) and len(url) <= MOST_LINK,
        has_changed=has_changed,
    )


async def _find_filename(caller: Caller, file_id: str) -> str:
    try:
        return (await caller.resources.files.get(file_id, caller.key.tenant)).filename
    except HttpError:
        return file_id


async def _has_changed(caller: Caller, url: str, etag: str) -> bool | None:
    """Compares an input with the version that was read; None if its store does not tell in time."""
    resources = caller.resources
    try:
        async with asyncio.timeout(CHECKED_S):
            found = await resources.files.run_store(resources.media.stat, url)
    except errors.OutputNotFound:
        return True
    except (TimeoutError, errors.VideoQAError):
        return None
    return found.etag != etag


@pictures.get("/jobs/{job_id}/thumbnail")
async def get_thumbnail(caller: Reader, job_id: JobId) -> Response:
    """Returns a small picture of the job, or one that stands for none."""
    kept_s, kind = 3600, "image/jpeg"
    try:
        data = await caller.client.sheet(job_id, thumbnail=True)
    except (errors.JobNotFound, errors.JobExpired, errors.RecordUnreadable):
        raise
    except (errors.LookupFailed, errors.OutputError):
        data, kept_s, kind = _NO_PICTURE, 60, "image/svg+xml"
    headers = {
        "cache-control": f"private, max-age={kept_s}",
        "vary": "Authorization, Cookie",
        "content-security-policy": "sandbox; default-src 'none'",
    }
    return Response(data, headers=headers, media_type=kind)


_NO_PICTURE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 54"><path d="M40 20h16v14H40zM44 20v14M52 20v14" '
    b'fill="none" stroke="#808a94" stroke-width="1.5"/></svg>'
)


@router.post("/jobs/{job_id}/cancel")
async def cancel(request: Request, caller: Submitter, job_id: JobId) -> Response:
    """Cancels the job, unless it has ended."""
    await read_form(request)
    job = await caller.client.cancel(job_id)
    is_done = job.state in ("canceled", "canceling")
    words = f"The job {describe_state(job.state)}."
    if not is_done:
        words = f"Nothing was changed: the job {describe_state(job.state)}."
    return _leave(request, job_id, words, "good" if is_done else "warn")


@router.post("/jobs/{job_id}/retry")
async def retry(request: Request, caller: Submitter, job_id: JobId) -> Response:
    """Queues the job again."""
    await read_form(request)
    try:
        job = await caller.retry(job_id)
    except errors.NotRetryable:
        job = await caller.client.get(job_id)
        words = f"Nothing was changed: the job {describe_state(job.state)}."
        return _leave(request, job_id, words, "warn")
    return _leave(request, job_id, f"The job {describe_state(job.state)} again.")


@router.post("/jobs/{job_id}/delete")
async def delete(request: Request, caller: Submitter, job_id: JobId) -> Response:
    """Deletes the record of a job that has ended."""
    await read_form(request)
    try:
        await caller.client.purge(job_id)
    except errors.NotRetryable as error:
        return _leave(request, job_id, f"Nothing was deleted: {error.message}", "warn")
    return leave_page(request, "/jobs", notice=f"The record of {job_id} was deleted.")


def _leave(request: Request, job_id: str, words: str, tone: str = "good") -> Response:
    return leave_page(request, "/jobs/{job_id}", job_id=job_id, notice=words, tone=tone)
