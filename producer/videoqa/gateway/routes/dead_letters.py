"""Dead letters: numbers of the jobs that failed for good, by code, time and message."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from videoqa.contract import DeadGroups
from videoqa.gateway.access.caller import Reader
from videoqa.gateway.http.queries import check_query
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import OnlyTenant
from videoqa.gateway.routes.answers import DeadList

__all__ = ["router"]

router = APIRouter(prefix="/v1/dead-letters", tags=["Jobs"], dependencies=[Depends(check_query)])


@router.get("")
@document(
    "count_dead_letters",
    answers={200: Answer("The numbers.", Content(DeadList, {"codes": [examples.DEAD_COUNT]}))},
)
async def count_dead(caller: Reader, tenant: OnlyTenant = None) -> Response:
    """Counts dead letters by error code: those of the last hour, day and week, and all.

    `GET /v1/jobs` with the `code`, and `ended_since` an hour ago, lists just those of a number.
    """
    rows = await caller.client.count_dead(tenant=tenant)
    return JSONResponse({"codes": [row.model_dump(mode="json") for row in rows]})


@router.get("/groups")
@document(
    "group_dead_letters",
    answers={200: Answer("The groups.", Content(DeadGroups, examples.DEAD_GROUPS))},
)
async def group_dead(
    caller: Reader,
    code: Annotated[
        str, Query(description="Error code of the failures.", examples=["worker_lost"])
    ],
    tenant: OnlyTenant = None,
) -> Response:
    """Groups the newest 2,000 dead letters with a code: those of a group differ in names, numbers and URLs only.

    `GET /v1/jobs` with the `code` and the `group` lists just those of a group.
    """
    found = await caller.client.group_dead(code, tenant=tenant)
    return JSONResponse(found.model_dump(mode="json"))
