"""The pages of runs over archives: their progress, failures with rows, and where the results lie."""

from __future__ import annotations

from typing import cast, get_args

from fastapi import Request, Response

from videoqa.contract import RunPage, RunState
from videoqa.gateway.access.caller import Reader
from videoqa.gateway.batches.record import Batch
from videoqa.gateway.dashboard.frame import PageRouter, show_page, take_snapshot

__all__ = ["router"]

router = PageRouter()
PAGE = 50


@router.get("/runs")
async def show_runs(
    request: Request,
    caller: Reader,
    state: str = "",
    q: str = "",
    cursor: str | None = None,
) -> Response:
    """Shows the runs, the last start in front."""
    text = q.strip()[:200]

    async def read() -> RunPage:
        chosen = cast("RunState | None", state or None)  # another one is refused there
        return await caller.client.runs(state=chosen, text=text or None, cursor=cursor, limit=PAGE)

    found = await take_snapshot(caller, "runs", read, state, text, cursor)
    return show_page(
        request,
        "runs.html",
        found=found,
        states=get_args(RunState),
        state=state,
        text=text,
        cursor=cursor,
    )


@router.get("/runs/{run_id}")
async def show_run(request: Request, caller: Reader, run_id: str) -> Response:
    """Shows one run."""
    resources = caller.resources
    run = await take_snapshot(caller, "run", lambda: caller.client.get_run(run_id), run_id)
    batch: Batch | None = None
    if run.kind == "batch":
        batch = await resources.run(resources.batches.find, run_id)
        if batch is not None and caller.key.tenant not in (None, batch.record.tenant):
            batch = None
    return show_page(request, "run.html", run=run, batch=batch)
