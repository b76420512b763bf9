"""Runs of archives: `videoqa caption` and batches, as they announce themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from videoqa.contract import ArchiveRun, RunReport, RunState
from videoqa.gateway.access.caller import Reader, Submitter
from videoqa.gateway.http.bodies import parse_model, read_object
from videoqa.gateway.http.queries import check_query
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import EXAMPLE_RUN, RunId
from videoqa.gateway.routes.answers import RunBody, RunList

__all__ = ["router"]

router = APIRouter(prefix="/v1/runs", tags=["Runs"], dependencies=[Depends(check_query)])


@router.post("", status_code=204)
@document(
    "announce_run",
    body=Content(RunBody, examples.RUN_ANNOUNCED),
    answers={204: Answer("The words are noted.")},
    errors=("run_not_found",),
)
async def announce_run(request: Request, caller: Submitter) -> Response:
    """Notes the words of a run about itself: its counts, and how it fares.

    `videoqa caption` calls this every few seconds. A run that says nothing for a minute counts as interrupted.
    """
    found = parse_model(RunBody, await read_object(request))
    fields = found.model_dump(exclude={"begins"})
    report = RunReport.model_validate(
        fields | {"tenant": caller.key.tenant, "who": f"{caller.key.name} ({caller.key.id})"[:200]}
    )
    await caller.client.announce_run(report, begins=found.begins)
    return Response(status_code=204)


@router.get("")
@document(
    "list_runs",
    answers={
        200: Answer(
            "One page.",
            Content(
                RunList, {"runs": [examples.RUN_LISTED], "next_cursor": None, "has_more": False}
            ),
        )
    },
)
async def list_runs(
    caller: Reader,
    state: Annotated[
        RunState | None, Query(description="Only runs in this state.", examples=["running"])
    ] = None,
    q: Annotated[
        str | None,
        Query(
            description="Only runs with this text in their id, name, output, tenant, user or host.",
            examples=["parade"],
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        Query(
            description="`next_cursor` of the page before.",
            examples=[f"1764495004.000000-{EXAMPLE_RUN}"],
        ),
    ] = None,
    limit: Annotated[
        int, Query(description="Most runs of the page, 1 to 200.", examples=[50])
    ] = 50,
) -> Response:
    """Lists the runs over archives, the last start in front, each for 30 days after its last word."""
    page = await caller.client.runs(state=state, text=q, cursor=cursor, limit=limit)
    body = RunList(
        runs=list(page.runs),
        next_cursor=page.next_cursor,
        has_more=page.next_cursor is not None,
    )
    return JSONResponse(body.model_dump(mode="json"))


@router.get("/{run_id}")
@document(
    "get_run",
    answers={200: Answer("The run.", Content(ArchiveRun, examples.RUN))},
    errors=("run_not_found",),
)
async def get_run(caller: Reader, run_id: RunId) -> Response:
    """Returns a run, with the first rows of each code of failure."""
    run = await caller.client.get_run(run_id)
    return JSONResponse(run.model_dump(mode="json"))
