"""Webhooks: the calls that were made when jobs ended, and the secret that signs them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from videoqa.errors import OperatorOnly
from videoqa.gateway.access.caller import Caller, Needs, Reader, Submitter
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import EXAMPLE_DELIVERY, EXAMPLE_JOB, DeliveryId
from videoqa.gateway.routes.answers import DeliveryCounts, DeliveryList, LinkedDelivery, Secret
from videoqa.gateway.webhooks import Delivery, SigningSecret
from videoqa.gateway.webhooks.deliveries import DeliveryStatus

__all__ = ["router"]

router = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"])
Administrator = Annotated[Caller, Depends(Needs("admin"))]
Tenant = Annotated[
    str | None,
    Query(
        description="The tenant whose secret it is; another than the key's is refused.",
        examples=["acme"],
    ),
]


def _answer(delivery: Delivery, status: int = 200) -> Response:
    return JSONResponse(LinkedDelivery.make(delivery).model_dump(mode="json"), status)


@router.get("/deliveries")
@document(
    "list_deliveries",
    answers={
        200: Answer(
            "One page.",
            Content(
                DeliveryList,
                {
                    "deliveries": [examples.DELIVERY],
                    "counts": {"pending": 1, "delivered": 0, "failed": 0},
                    "next_cursor": None,
                    "has_more": False,
                },
            ),
        )
    },
)
async def list_deliveries(
    caller: Reader,
    status: Annotated[
        DeliveryStatus | None,
        Query(description="Only deliveries in this status.", examples=["failed"]),
    ] = None,
    job: Annotated[
        str | None, Query(description="Only those of this job.", examples=[EXAMPLE_JOB])
    ] = None,
    cursor: Annotated[
        str | None,
        Query(
            description="`next_cursor` of the page before.",
            examples=[f"1764495004.000000-{EXAMPLE_DELIVERY}"],
        ),
    ] = None,
    limit: Annotated[
        int, Query(description="Most deliveries of the page, 1 to 1000.", examples=[100])
    ] = 100,
) -> Response:
    """Lists the webhooks of jobs that have ended, newest first: pending, delivered and failed ones.

    Delivered ones are kept for a day, others for 14 days.
    """
    store = caller.resources.deliveries
    page = await caller.resources.run(
        store.find, caller.key.tenant, status=status, job_id=job, cursor=cursor, limit=limit
    )
    counts = await caller.resources.run(store.count, caller.key.tenant)
    body = DeliveryList(
        deliveries=[LinkedDelivery.make(one) for one in page.deliveries],
        counts=DeliveryCounts(**counts),
        next_cursor=page.next_cursor,
        has_more=page.next_cursor is not None,
    )
    return JSONResponse(body.model_dump(mode="json"))


@router.get("/deliveries/{delivery_id}")
@document(
    "get_delivery",
    answers={200: Answer("The delivery.", Content(LinkedDelivery, examples.DELIVERY))},
    errors=("delivery_not_found",),
)
async def get_delivery(caller: Reader, delivery_id: DeliveryId) -> Response:
    """Returns one delivery with its last attempts."""
    store = caller.resources.deliveries
    return _answer(await caller.resources.run(store.get, delivery_id, caller.key.tenant))


@router.post("/deliveries/{delivery_id}/replay", status_code=202)
@document(
    "replay_delivery",
    answers={202: Answer("The delivery.", Content(LinkedDelivery, examples.DELIVERY))},
    errors=("delivery_not_found",),
)
async def replay(caller: Submitter, delivery_id: DeliveryId) -> Response:
    """Sends a webhook again, with the same `webhook-id` and all its attempts; also to a URL that had answered 410."""
    store = caller.resources.deliveries
    return _answer(await caller.resources.run(store.replay, delivery_id, caller.key.tenant), 202)


@router.get("/secret")
@document("get_secret", answers={200: Answer("The secret.", Content(Secret, examples.SECRET))})
async def get_secret(caller: Administrator, tenant: Tenant = None) -> Response:
    """Returns the secret that signs a tenant's webhooks; one is made when it is first asked for."""
    secrets = caller.resources.secrets
    return _show(await caller.resources.run(secrets.get, _choose_tenant(caller, tenant)))


@router.post("/secret/rotate")
@document(
    "rotate_secret", answers={200: Answer("The new secret.", Content(Secret, examples.SECRET))}
)
async def rotate_secret(caller: Administrator, tenant: Tenant = None) -> Response:
    """Makes a new secret; for a day both the old and the new one sign each call."""
    secrets = caller.resources.secrets
    return _show(await caller.resources.run(secrets.rotate, _choose_tenant(caller, tenant)))


def _choose_tenant(caller: Caller, tenant: str | None) -> str | None:
    own = caller.key.tenant
    if own is not None and tenant not in (None, own):
        raise OperatorOnly(
            "this key is one tenant's, and the call is about another; use an operator's key"
        )
    return own if own is not None else tenant


def _show(secret: SigningSecret) -> Response:
    body = Secret(
        secret=secret.current,
        previous=secret.previous,
        previous_until=secret.previous_until,
    )
    return JSONResponse(body.model_dump(mode="json"))
