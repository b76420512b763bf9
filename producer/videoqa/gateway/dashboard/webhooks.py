"""The page of webhooks: deliveries with their outcome, tries and replay."""

from __future__ import annotations

from typing import get_args

from fastapi import Request, Response

from videoqa.gateway.access.caller import Reader, Submitter
from videoqa.gateway.dashboard.frame import (
    PageRouter,
    leave_page,
    read_form,
    show_page,
    take_snapshot,
)
from videoqa.gateway.webhooks import Delivery
from videoqa.gateway.webhooks.deliveries import DeliveryPage, DeliveryStatus

__all__ = ["router"]

router = PageRouter()
PAGE = 50


@router.get("/webhooks")
async def show_webhooks(
    request: Request,
    caller: Reader,
    status: DeliveryStatus | None = None,
    job: str = "",
    cursor: str | None = None,
) -> Response:
    """Shows the deliveries, newest first, of a status or a job."""
    resources, store, job = caller.resources, caller.resources.deliveries, job.strip()[:100]

    async def read() -> tuple[DeliveryPage, dict[str, int]]:
        page = await resources.run(
            store.find,
            caller.key.tenant,
            status=status,
            job_id=job or None,
            cursor=cursor,
            limit=PAGE,
        )
        return page, await resources.run(store.count, caller.key.tenant)

    found, counts = await take_snapshot(caller, "webhooks", read, status, job, cursor)
    return show_page(
        request,
        "webhooks.html",
        found=found,
        counts=counts,
        statuses=get_args(DeliveryStatus),
        chosen=status,
        job=job,
        cursor=cursor,
        may_replay=caller.key.may("submit"),
    )


@router.get("/webhooks/{delivery_id}")
async def show_delivery(request: Request, caller: Reader, delivery_id: str) -> Response:
    """Shows one delivery with its attempts."""
    store = caller.resources.deliveries
    found = await caller.resources.run(store.get, delivery_id, caller.key.tenant)
    return show_page(
        request,
        "delivery.html",
        delivery=found,
        mark=_mark(found),
        may_replay=caller.key.may("submit"),
    )


def _mark(delivery: Delivery) -> str:
    """Returns a text that changes with each attempt, and with a replay."""
    last = delivery.log[-1].at.isoformat() if delivery.log else ""
    return f"{delivery.status} {last}"


@router.post("/webhooks/{delivery_id}/replay")
async def replay(request: Request, caller: Submitter, delivery_id: str) -> Response:
    """Sends a webhook again, unless that has happened since the reader's page was made."""
    form = await read_form(request)
    store, tenant = caller.resources.deliveries, caller.key.tenant
    now = await caller.resources.run(store.get, delivery_id, tenant)
    if form.get("seen") != _mark(now):
        return leave_page(
            request,
            "/webhooks/{delivery_id}",
            delivery_id=delivery_id,
            notice=f"Not sent again: it has changed meanwhile, and is {now.status} now.",
            tone="warn",
        )
    await caller.resources.run(store.replay, delivery_id, tenant)
    return leave_page(
        request,
        "/webhooks/{delivery_id}",
        delivery_id=delivery_id,
        notice="It is sent again now.",
    )
