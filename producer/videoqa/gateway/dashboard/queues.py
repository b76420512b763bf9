"""The page of the queues, which may be paused and resumed."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request, Response
from starlette.datastructures import FormData

from videoqa.contract import QueueInfo
from videoqa.gateway.access.caller import NotingOperator, Reader
from videoqa.gateway.dashboard.frame import (
    PageRouter,
    leave_page,
    read_form,
    show_page,
    take_snapshot,
)
from videoqa.gateway.dashboard.rows import has_text, take_rows
from videoqa.gateway.routes.fleet import describe_choice, read_choice

__all__ = ["router"]

router = PageRouter()
PAGE = 40
MOST_UNSERVED = 5
"""Queues without a worker that are told of at a time."""


@router.get("/queues")
async def show_queues(
    request: Request,
    caller: Reader,
    q: str = "",
    start: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Shows the queues of each model and priority."""
    queues, text = await take_snapshot(caller, "queues", caller.client.queues), q.strip()[:200]
    shown = [queue for queue in queues if has_text(text, queue.model)]
    rows, next_start = take_rows(shown, start, PAGE)
    unserved = [queue for queue in queues if queue.waiting and not queue.workers]
    return show_page(
        request,
        "queues.html",
        queues=rows,
        count=len(queues),
        text=text,
        start=start,
        next_start=next_start,
        waiting=sum(queue.waiting for queue in queues),
        running=sum(queue.running for queue in queues),
        paused=[queue for queue in queues if queue.paused],
        unserved=unserved[:MOST_UNSERVED],
        others_unserved=len(unserved[MOST_UNSERVED:]),
        may_change=caller.key.may("operate") and caller.key.tenant is None,
    )


@router.post("/queues/{change}")
async def change_queue(
    request: Request, caller: NotingOperator, change: Literal["pause", "resume"]
) -> Response:
    """Pauses or resumes a queue; one that is so already stays so."""
    form = await read_form(request)
    chosen = read_choice(
        {"model": form.get("model") or None, "priority": form.get("priority") or None}
    )
    pauses = change == "pause"
    name = describe_choice(chosen)
    before = [queue for queue in await caller.client.queues() if _is_of(queue, form)]
    await caller.note(on=name, detail=f"{'pause' if pauses else 'resume'}, {caller.key.name}")
    if pauses:
        await caller.client.pause(chosen.model, priority=chosen.priority)
        words = f"Paused: {name}. Running jobs go on, and new ones wait."
    else:
        await caller.client.resume(chosen.model, priority=chosen.priority)
        words = f"Resumed: {name}."
    if before and all(queue.paused == pauses for queue in before):
        words = f"Nothing to change: {name} {'was paused' if pauses else 'ran'} already."
    return leave_page(request, "/queues", notice=words)


def _is_of(queue: QueueInfo, form: FormData) -> bool:
    return (queue.model or "", queue.priority) == (form.get("model"), form.get("priority"))
