"""Usage: what the jobs of a tenant, or of all, have used."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from videoqa import errors
from videoqa.contract import UsageBy
from videoqa.gateway.access.caller import Reader
from videoqa.gateway.http.queries import check_query
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import Day, OnlyTenant
from videoqa.gateway.routes.answers import UsageList

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Usage"], dependencies=[Depends(check_query)])

DAYS = 30
"""Days of an answer if the caller names no first one."""


@router.get("/usage")
@document(
    "list_usage",
    answers={200: Answer("The rows, by name.", Content(UsageList, examples.USAGE))},
)
async def list_usage(
    caller: Reader,
    first_day: Annotated[
        Day | None,
        Query(alias="from", description="First day, in UTC.", examples=["2026-11-01"]),
    ] = None,
    last_day: Annotated[
        Day | None, Query(alias="to", description="Last day, in UTC.", examples=["2026-11-30"])
    ] = None,
    by: Annotated[UsageBy, Query(description="Dimension of the rows.", examples=["day"])] = "day",
    tenant: OnlyTenant = None,
) -> Response:
    """Lists the jobs that ended, and what they used, by day, model, tag, API key or tenant.

    Days are those of UTC, both ends included, the last 30 by default. A tenant's key sees its own jobs; an operator's
    those of all tenants, or of `tenant`.
    """
    last = last_day or datetime.now(UTC).date()
    first = first_day or date.fromordinal(max(1, last.toordinal() - DAYS + 1))
    try:
        rows = await caller.client.usage(first_day=first, last_day=last, by=by, tenant=tenant)
    except (errors.InvalidRequest, errors.ConfigurationError) as error:
        param = {"first_day": "from", "last_day": "to"}.get(str(error.param), error.param)
        raise errors.InvalidRequest(error.message, param=param) from error
    return JSONResponse(
        {
            "from": first.isoformat(),
            "to": last.isoformat(),
            "by": by,
            "usage": [row.model_dump(mode="json") for row in rows],
        }
    )
