"""Bulk actions: all jobs of a filter are canceled, retried or deleted, after a look at their number and some."""

from __future__ import annotations

import secrets
from functools import partial
from typing import cast

from fastapi import Request, Response

from videoqa.contract import BulkKind
from videoqa.errors import CountChanged, InvalidRequest
from videoqa.gateway.access.caller import Caller, Reader, Submitter
from videoqa.gateway.dashboard.frame import (
    PageRouter,
    leave_page,
    read_form,
    read_now,
    show_page,
    take_snapshot,
)
from videoqa.gateway.dashboard.job_filters import JobsQuery, parse_time, read_query
from videoqa.gateway.dashboard.selection_page import ACTIONS
from videoqa.gateway.reference.parameters import BulkId

__all__ = ["router"]

router = PageRouter()


@router.get("/jobs/bulk")
async def preview(request: Request, caller: Submitter) -> Response:
    """Shows what an action would change; without an action the newest ones."""
    action = request.query_params.get("action", "")
    if action not in ACTIONS:
        found = await caller.client.list_bulk(limit=50)
        return show_page(request, "bulk_list.html", actions=found, names=ACTIONS)
    query = read_query(request.query_params, await read_now(caller))
    return await _show_preview(request, caller, action, query)


async def _show_preview(
    request: Request, caller: Caller, action: str, query: JobsQuery, mistake: str = ""
) -> Response:
    seen = None
    mistake = mistake or query.mistake
    if not query.mistake:
        try:
            seen = await caller.client.preview_bulk(cast(BulkKind, action), **query.fields)
        except InvalidRequest as error:
            mistake = error.message
    return show_page(
        request,
        "bulk_new.html",
        action=ACTIONS[action],
        name=action,
        query=query,
        preview=seen,
        mistake=mistake,
        once=secrets.token_hex(8),
        hides_text=caller.resources.settings.hide_text,
    )


@router.post("/jobs/bulk")
async def start(request: Request, caller: Submitter) -> Response:
    """Begins an action, and leads to its progress; a form that is sent twice begins it once."""
    form = {name: str(value) for name, value in (await read_form(request)).items()}
    action = form.get("action", "")
    if action not in ACTIONS:
        raise InvalidRequest(
            f"got action {action!r:.50}, expected one of {', '.join(ACTIONS)}", param="action"
        )
    query = read_query(form, await read_now(caller))
    if query.mistake:
        raise InvalidRequest(query.mistake)
    count = form.get("count", "").replace(",", "").strip()
    typed = form.get("typed", "" if action == "purge" else count).replace(",", "").strip()
    if typed != count or not count.isdecimal() or len(count) > 12:
        words = f"Nothing was changed: got the number {typed!r:.30}, expected {count!r:.30}."
        return await _show_preview(request, caller, action, query, words)
    try:
        started = await caller.start_bulk(
            cast(BulkKind, action),
            query.fields,
            expected=int(count),
            cut_off=parse_time("cut_off", form.get("cut_off", "")),
            key=form.get("once", "")[:64] or None,
        )
    except CountChanged as error:
        return await _show_preview(request, caller, action, query, error.message)
    request.app.state.bulk_runner.wake()
    return leave_page(request, "/jobs/bulk/{bulk_id}", bulk_id=started.id)


@router.get("/jobs/bulk/{bulk_id}")
async def show_progress(request: Request, caller: Reader, bulk_id: BulkId) -> Response:
    """Shows how far an action is, and the jobs that it left as they were."""
    read = partial(caller.client.get_bulk, bulk_id)
    found = await take_snapshot(caller, "bulk", read, bulk_id)
    return show_page(
        request,
        "bulk.html",
        bulk=found,
        who=caller.key.name if found.who == caller.key.id else found.who,
        action=ACTIONS[found.action],
        filters=found.filter.model_dump(mode="json", exclude_none=True),
        may_change=caller.key.may("submit"),
    )


@router.post("/jobs/bulk/{bulk_id}/stop")
async def stop(request: Request, caller: Submitter, bulk_id: BulkId) -> Response:
    """Stops an action; what it has changed stays changed."""
    await read_form(request)
    try:
        found = await caller.client.stop_bulk(bulk_id)
        words, tone = f"The action is {found.status}.", "good"
    except InvalidRequest as error:
        words, tone = error.message, "warn"
    return leave_page(request, "/jobs/bulk/{bulk_id}", bulk_id=bulk_id, notice=words, tone=tone)
