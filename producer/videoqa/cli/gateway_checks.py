"""Checks of `videoqa doctor` for a client of a gateway: its address, the Redis behind it, the API key, the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime

from videoqa import errors
from videoqa.backends.http.address import GatewayAddress
from videoqa.backends.http_backend import HttpBackend
from videoqa.cli.output import Check
from videoqa.settings import Settings

__all__ = ["check_gateway"]

MOST_SKEW_S = 60.0
"""Difference of clocks from which on times such as `start_by` mean something else to the caller."""


def check_gateway(settings: Settings) -> Iterator[Check]:
    """Yields each check when it is done; those behind one that failed are left out."""
    address = GatewayAddress.of(settings)
    with closing(HttpBackend(address)) as backend:
        reach = _check_reach(backend)
        yield reach
        if not reach.ok:
            return
        yield _check_clock(backend)
        ready = _check_ready(backend)
        yield ready
        if ready.ok:
            yield from _check_key(backend, address)


def _check_reach(backend: HttpBackend) -> Check:
    begun_s = time.monotonic()
    try:
        backend.connection.call("GET", "/livez")
    except errors.VideoQAError as error:
        return Check(
            "gateway",
            ok=False,
            found=error.message,
            next_step="correct VIDEOQA_URL, or start the gateway there; `videoqa login URL` keeps another",
        )
    found = f"{backend.connection.address.shown} answers in {1000 * (time.monotonic() - begun_s):.0f} ms"
    return Check("gateway", ok=True, found=found)


def _check_clock(backend: HttpBackend) -> Check:
    _, headers = backend.connection.get("/livez")
    away_s = _measure_skew(headers.get("date", ""))
    if away_s is None:
        return Check("clock", ok=True, found="the gateway does not tell its time")
    return Check(
        "clock",
        ok=abs(away_s) < MOST_SKEW_S,
        found=f"{abs(away_s):.0f} s from the gateway's",
        next_step="set the clock of the one that is wrong: times of jobs are the gateway's",
    )


def _measure_skew(date: str) -> float | None:
    """Returns the seconds by which this clock is before the one that wrote the date; None: it is no date."""
    try:
        return time.time() - parsedate_to_datetime(date[:100]).timestamp()
    except (ValueError, OverflowError):
        return None


def _check_ready(backend: HttpBackend) -> Check:
    try:
        backend.ping()
    except errors.VideoQAError as error:
        return Check(
            "redis",
            ok=False,
            found=error.message,
            next_step="run `videoqa doctor` beside the gateway, with its VIDEOQA_REDIS_URL",
        )
    return Check("redis", ok=True, found="the gateway reaches it")


def _check_key(backend: HttpBackend, address: GatewayAddress) -> Iterator[Check]:
    renew = "log in again with `videoqa login`, or set VIDEOQA_API_KEY"
    try:
        models = backend.list_models()
    except errors.OperatorOnly as error:
        yield Check("key", ok=True, found=error.message)
        return
    except errors.VideoQAError as error:
        yield Check("key", ok=False, found=error.message, next_step=renew)
        return
    yield Check("key", ok=True, found="valid" if address.key else "none is asked for")
    yield Check(
        "workers",
        ok=bool(models),
        found=f"serving {', '.join(models)}" if models else "no ready worker serves a model",
        next_step="ask the operator: jobs wait until a worker is ready",
    )
