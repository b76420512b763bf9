"""The metrics of a gateway, for Prometheus, which shows a key with the role `read`."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from videoqa import __version__
from videoqa.errors import RedisUnavailable
from videoqa.gateway.access.caller import Caller, Needs
from videoqa.gateway.metrics.fleet_metrics import make_fleet_families
from videoqa.gateway.resources import Resources
from videoqa.telemetry.metrics import gateway as declared
from videoqa.telemetry.metrics.instruments import Samples, make_family

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


class _NeedsInOutage(Needs):
    """The dependency on a role, that also answers while Redis, which has the keys, is away: by None."""

    async def __call__(self, request: Request) -> Caller | None:  # type: ignore[override]
        """Returns the caller; raises WrongKey or OperatorOnly."""
        try:
            return await super().__call__(request)
        except RedisUnavailable:
            return None


Scraper = Annotated[Caller | None, Depends(_NeedsInOutage("read", all_tenants=True))]


@router.get("/metrics")
async def get_metrics(request: Request, caller: Scraper) -> Response:
    """Returns the metrics of the fleet and of this gateway.

    Without Redis no key can be checked. Then whoever showed a right key before is told the gateway's own numbers, and
    others only that Redis is away, which `/readyz` tells everybody.
    """
    resources = cast(Resources, request.app.state.resources)
    if caller is None:
        text = _write(make_fleet_families(None))
        if _was_right(request, resources):
            text += _write_own(resources)
    else:
        text = _write(await resources.fleet_metrics.collect()) + _write_own(resources)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _was_right(request: Request, resources: Resources) -> bool:
    credential = request.scope["state"].get("credential")
    key = resources.checked.find_earlier(*credential) if credential else None
    return key is not None and key.may("read") and key.tenant is None


def _write_own(resources: Resources) -> bytes:
    info: Samples = {(__version__,): 1}
    streams: Samples = {(): resources.streams.count}
    gauges = [
        make_family(declared.GATEWAY_INFO, info),
        make_family(declared.HTTP_STREAMS, streams),
    ]
    return _write(gauges) + generate_latest(resources.metrics.registry)


class _Families(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        """Returns the metrics."""
        return self._families


def _write(families: list[Family]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)
