"""The pages of dead letters: by code and time, by message, and each job, which may be retried.

All of a code, a group or a time are retried or deleted by a bulk action (`bulk_page.py`).
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from videoqa import errors
from videoqa.contract import (
    BulkAction,
    DeadCount,
    DeadGroups,
    JobPage,
    describe_state,
)
from videoqa.gateway.access.caller import Reader, Submitter
from videoqa.gateway.dashboard.frame import (
    PageRouter,
    leave_page,
    read_form,
    read_now,
    show_page,
    take_snapshot,
)
from videoqa.gateway.dashboard.job_filters import read_query

__all__ = ["router"]

router = PageRouter()
PAGE = 25
ALL = "all"
"""Stands in a path for all codes."""


@router.get("/dead")
async def show_dead(request: Request, caller: Reader) -> Response:
    """Shows the numbers of dead letters by code and time, and the bulk actions that go on."""
    counts = await take_snapshot(caller, "dead", caller.client.count_dead)

    async def read_actions() -> list[BulkAction]:
        return await caller.client.list_bulk(limit=20)

    actions = await take_snapshot(caller, "bulk", read_actions)
    return show_page(
        request,
        "dead.html",
        rows=[_describe(row) for row in counts],
        total=_sum(counts),
        actions=[each for each in actions if not each.has_ended],
        may_change=caller.key.may("submit"),
    )


def _describe(row: DeadCount) -> dict[str, Any]:
    kind = errors.REGISTRY.get(row.code)
    meaning = (kind.__doc__ or "").strip().partition("\n")[0] if kind else ""
    return {"count": row, "meaning": meaning, "advice": kind.next_step if kind else ""}


def _sum(rows: list[DeadCount]) -> DeadCount:
    return DeadCount(
        code=ALL,
        hour=sum(row.hour for row in rows),
        day=sum(row.day for row in rows),
        week=sum(row.week for row in rows),
        all=sum(row.all for row in rows),
    )


@router.get("/dead/{code}")
async def show_code(
    request: Request,
    caller: Reader,
    code: str,
    group: str = "",
    within: str = "",
    cursor: str | None = None,
) -> Response:
    """Shows the dead letters of a code by their message, and the jobs of one group or all, the last failure first."""
    which = {"state": "failed"} if code == ALL else {"code": code}
    query = read_query(which | {"group": group, "ended_within": within}, await read_now(caller))
    if query.mistake:
        raise errors.InvalidRequest(query.mistake)

    async def read() -> tuple[list[DeadCount], DeadGroups | None, JobPage]:
        counts = await caller.client.count_dead()
        groups = None if code == ALL else await caller.client.group_dead(code)
        jobs = await caller.client.list(cursor=cursor, limit=PAGE, **query.fields)
        return counts, groups, jobs

    counts, groups, jobs = await take_snapshot(
        caller, "dead letters", read, code, group, within, cursor
    )
    count = (
        _sum(counts)
        if code == ALL
        else next((row for row in counts if row.code == code), DeadCount(code=code, hour=0, day=0, week=0, all=0))
    )  # fmt: skip
    return show_page(
        request,
        "dead_code.html",
        code=code,
        about=_describe(count),
        count=count,
        groups=groups,
        group=group,
        within=within,
        query=query,
        jobs=jobs,
        cursor=cursor,
        hides_text=caller.resources.settings.hide_text,
        may_change=caller.key.may("submit"),
    )


@router.post("/dead/{code}/{job_id}/retry")
async def retry(request: Request, caller: Submitter, code: str, job_id: str) -> Response:
    """Retries one dead letter; one that is none any more stays as it is."""
    form = await read_form(request)
    back: dict[str, Any] = {
        name: str(form.get(name, "")) or None for name in ("group", "within", "cursor")
    }
    words, tone = f"Queued again: {job_id}.", "good"
    job = await caller.client.get(job_id)
    try:
        if job.state == "failed":
            await caller.retry(job_id)
        else:
            words, tone = f"Left as it is: job {job_id} {describe_state(job.state)}.", "warn"
    except errors.NotRetryable as error:  # another caller was faster
        words, tone = f"Left as it is: {error.message}", "warn"
    return leave_page(request, "/dead/{code}", code=code, notice=words, tone=tone, **back)
