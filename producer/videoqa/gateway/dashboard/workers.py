"""The page of the workers: what each has, does, and said last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Request, Response

from videoqa.contract import WorkerInfo
from videoqa.gateway.access.caller import Operator
from videoqa.gateway.dashboard.frame import PageRouter, show_page, take_snapshot
from videoqa.gateway.dashboard.rows import has_text, take_rows

__all__ = ["router"]

router = PageRouter()
PAGE = 40
MOST_DIFFERING = 5
"""Models whose revisions differ that are told of at a time."""


@router.get("/workers")
async def show_workers(
    request: Request,
    caller: Operator,
    q: str = "",
    start: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Shows the workers that were heard within the last minute."""
    workers = await take_snapshot(caller, "workers", caller.client.workers)
    text = q.strip()[:200]
    shown = [
        worker
        for worker in workers
        if has_text(text, worker.id, worker.model, worker.host, worker.device, *worker.queues)
    ]
    shown.sort(key=lambda worker: (worker.model, worker.id))
    rows, next_start = take_rows(shown, start, PAGE)
    ready = [worker for worker in workers if worker.ready]
    return show_page(
        request,
        "workers.html",
        workers=rows,
        start=start,
        next_start=next_start,
        count=len(workers),
        ready=len(ready),
        running=sum(worker.running for worker in workers),
        slots=sum(worker.slots for worker in ready),
        models=len({worker.model for worker in ready}),
        tokens_s=sum(worker.tokens_s or 0.0 for worker in ready),
        differing=_find_differing(ready)[:MOST_DIFFERING],
        text=text,
    )


def _find_differing(workers: Sequence[WorkerInfo]) -> list[tuple[str, list[str]]]:
    """Returns the models that ready workers serve in several revisions, and these."""
    revisions: dict[str, set[str]] = defaultdict(set)
    for worker in workers:
        revisions[worker.model].add(worker.model_revision or "unknown")
    return [(model, sorted(found)) for model, found in sorted(revisions.items()) if len(found) > 1]
