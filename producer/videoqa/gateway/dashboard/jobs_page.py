"""The list of jobs: live, with filters that the address has, and page by page."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from fastapi import Request, Response

from videoqa.contract import FilterKeywords, JobCount, JobPage
from videoqa.errors import InvalidRequest
from videoqa.gateway.access.caller import Caller, Reader
from videoqa.gateway.dashboard.frame import (
    PageRouter,
    leave_page,
    make_link,
    read_now,
    show_page,
    take_snapshot,
)
from videoqa.gateway.dashboard.job_filters import (
    STATES,
    JobsQuery,
    list_options,
    read_instant,
    read_query,
    read_search,
)

__all__ = ["router"]

router = PageRouter()

ROWS = 50
_POLLED_OLDER_S = 20
"""Seconds between looks at pages that a reader has gone down to."""


@router.get("/jobs")
async def show_jobs(request: Request, caller: Reader) -> Response:
    """Shows a page of jobs, newest first.

    `cursor` is the end of the page before. `as_of` is the time of the page's first look: newer jobs are counted, and
    stand in no row until the reader asks for them.
    """
    params = request.query_params
    if "search" in params:
        given = read_query(params, datetime.now(UTC)).without("q")
        return leave_page(request, "/jobs", **(given | read_search(params["search"])))
    now = await read_now(caller)
    query = read_query(params, now)
    cursor = params.get("cursor") or None
    as_of = read_instant(params.get("as_of"), now)
    page, count, newer = JobPage(jobs=()), None, 0
    mistake = query.mistake
    if not mistake:
        try:
            page, count, newer = await _read(caller, query, cursor, as_of)
        except InvalidRequest as error:
            mistake = error.message
    here = query.given
    return show_page(
        request,
        "jobs.html",
        query=query,
        mistake=mistake,
        jobs=page.jobs,
        unreadable=page.unreadable,
        count=count,
        newer=newer,
        cursor=cursor,
        region=f"rows-{cursor.rpartition('-')[2]}" if cursor else "rows",
        states=STATES,
        spans=list(list_options(query)),
        hides_text=caller.resources.settings.hide_text,
        may_change=caller.key.may("submit"),
        sees_tenants=caller.key.tenant is None,
        here=make_link(request, "/jobs", **here),
        poll=make_link(request, "/jobs", **here, cursor=cursor, as_of=as_of.isoformat()),
        polled_s=_POLLED_OLDER_S if cursor else 3,
        older=make_link(request, "/jobs", **here, cursor=page.next_cursor, as_of=as_of.isoformat())
        if page.next_cursor
        else None,
        looked_at=page.looked_at,
    )


async def _read(
    caller: Caller, query: JobsQuery, cursor: str | None, as_of: datetime
) -> tuple[JobPage, JobCount, int]:
    """Returns a page of jobs as they are now, the number of all, and that of those which came after `as_of`."""
    key = tuple(sorted(query.given.items()))
    end, begin = ("ended_until", "ended_since") if query.is_dead else ("until", "since")
    until = cast("datetime | None", query.fields.get(end))
    shown = _with(query.fields, **{end: as_of if until is None else min(until, as_of)})
    list_page = partial(caller.client.list, cursor=cursor, limit=ROWS, **shown)
    count = partial(caller.client.count, **query.fields)

    async def count_newer() -> int:
        since = cast("datetime | None", query.fields.get(begin))
        newer = _with(query.fields, **{begin: as_of if since is None else max(since, as_of)})
        return (await caller.client.count(**newer)).count

    is_past = until is not None and until <= as_of
    page, number, newer = await asyncio.gather(
        take_snapshot(caller, "jobs", list_page, key, cursor, as_of),
        take_snapshot(caller, "jobs count", count, key),
        _return_zero()
        if is_past or cursor
        else take_snapshot(caller, "jobs newer", count_newer, key, as_of),
    )
    return page, number, newer


async def _return_zero() -> int:
    return 0


def _with(fields: FilterKeywords, **values: Any) -> FilterKeywords:
    return cast(FilterKeywords, {**fields, **values})
