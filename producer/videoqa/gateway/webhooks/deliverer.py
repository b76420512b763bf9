"""The deliverer: the part of a gateway that calls receivers, beside its requests and never in a worker."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from videoqa.errors import VideoQAError
from videoqa.gateway.webhook_settings import WebhookSettings
from videoqa.gateway.webhooks.deliveries import DeliveryAttempt, DeliveryStore, Leased, Outcome
from videoqa.gateway.webhooks.sender import CallFailed, Sender
from videoqa.gateway.webhooks.signing import SigningSecrets
from videoqa.net import Resolve, parse_networks, resolve_name
from videoqa.telemetry import log_events
from videoqa.telemetry.tracing import trace_delivery
from videoqa.webhooks import sign

__all__ = ["Deliverer"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_POLL_S = 0.5
"""Time after which a gateway without news looks again."""
_AWAY_S = 2.0
"""Time after which it looks again while Redis is away."""
_LEASE_CALLS = 2.0
"""Time for which a delivery is held, in longest calls: a gateway may be busy, and Redis slow."""
_THREADS = 4
"""Round trips at the same time; requests have threads of their own."""
_JITTER = 0.2


class Deliverer:
    """Takes deliveries whose turn it is, makes the calls, and notes how they ended."""

    def __init__(
        self,
        settings: WebhookSettings,
        store: DeliveryStore,
        secrets: SigningSecrets,
        *,
        resolve: Resolve = resolve_name,
        hide: Callable[[bytes], bytes] = bytes,
        on_call: Callable[[str, float], None] = lambda outcome, seconds: None,
    ) -> None:
        """
        Arguments:
            hide: takes out of a body what its receiver may not see.
            on_call: called with the outcome of each call, and the time that it took.
        """
        self._settings = settings
        self._hide = hide
        self._on_call = on_call
        self._store = store
        self._secrets = secrets
        self._sender = Sender(
            timeout_s=settings.webhook_timeout_s,
            networks=parse_networks(settings.webhook_networks),
            resolve=resolve,
        )
        self._delays_s = [float(one) for one in settings.webhook_retry_delays_s.split(",")]
        self._calls: set[asyncio.Task[None]] = set()
        self._unproven = 0
        """Calls under way to receivers that are new, or failed the last time."""
        self._free = asyncio.Event()
        self._limiter: CapacityLimiter | None = None
        self._stops = False
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to deliver, on the running event loop."""
        if self._settings.webhook_calls > 0:
            self._loop = asyncio.create_task(self.run(), name="webhooks")

    async def close(self, *, within_s: float) -> None:
        """Ends; calls under way get some time, and those that are cut off are made again once their lease ends."""
        self._stops = True
        self._free.set()
        if self._loop is not None:
            self._loop.cancel()
        calls = set(self._calls)
        if calls:
            await asyncio.wait(calls, timeout=within_s)
        for task in self._calls:
            task.cancel()
        rest = [*self._calls, *([self._loop] if self._loop is not None else [])]
        await asyncio.gather(*rest, return_exceptions=True)

    async def run(self) -> None:
        """Delivers until it is closed."""
        is_away = False
        while not self._stops:
            self._free.clear()
            try:
                wait_s = await self._take()
            except VideoQAError as error:
                if not is_away:
                    log_events.WEBHOOKS_WAIT.log(log, error=error)
                is_away = True
                await asyncio.sleep(_AWAY_S)
                continue
            except Exception:  # noqa: BLE001 - it is logged
                log_events.WEBHOOKS_FAILED.log(log, exc_info=True)
                await asyncio.sleep(_AWAY_S)
                continue
            is_away = False
            if wait_s > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._free.wait(), wait_s)

    async def _take(self) -> float:
        """Takes what there are free calls for; returns the time after which there may be more."""
        most = self._settings.webhook_calls
        free = most - len(self._calls)
        # Receivers that are new or failed the last time get half of the calls at most: they may all hang.
        unproven = max(0, most // 2 - self._unproven)
        taken = await self._run(
            self._store.take,
            free,
            unproven=unproven,
            per_receiver=self._settings.webhook_calls_per_receiver,
            lease_s=_LEASE_CALLS * self._settings.webhook_timeout_s,
        )
        for leased in taken.deliveries:
            task = asyncio.create_task(self._deliver(leased))
            self._calls.add(task)
            self._unproven += leased.is_unproven
            task.add_done_callback(partial(self._end_call, leased))
        if taken.has_moved or taken.deliveries:
            return 0.0
        return min(taken.wait_s, _POLL_S)

    def _end_call(self, leased: Leased, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._unproven -= leased.is_unproven
        self._free.set()
        if not task.cancelled() and task.exception() is not None:
            log_events.DELIVERY_AGAIN.log(log, error=task.exception())

    async def _deliver(self, leased: Leased) -> None:
        begun_s, at = time.monotonic(), datetime.now(UTC)
        status, asked_s, error, is_final = None, None, "", False
        if leased.is_gone:
            error, is_final = "the URL answered 410 before; a replay calls it again", True
        elif leased.attempts > len(self._delays_s) + 1:
            error, is_final = "gateways ended while they called it", True
        else:
            try:
                secret = await self._run(self._secrets.get, leased.tenant)
                body = self._hide(leased.body)
                headers = sign(
                    body,
                    webhook_id=leased.id,
                    timestamp_s=int(time.time()),
                    keys=secret.keys,
                )
                with trace_delivery(leased.job_id, leased.traceparent, leased.attempts) as delivery:
                    reply = await self._sender.post(leased.url, body, headers)
                    status, asked_s = reply.status, reply.retry_after_s
                    delivery(status)
                error = "" if 200 <= status < 300 else f"HTTP {status}"
            except CallFailed as failed:
                error, is_final = str(failed), failed.is_final
        spent_ms = round((time.monotonic() - begun_s) * 1000)
        attempt = DeliveryAttempt(at=at, status=status, ms=spent_ms, error=error)
        outcome = self._judge(leased, attempt, asked_s, is_final=is_final)
        self._on_call(outcome.status, spent_ms / 1000)
        await self._run(
            self._store.settle,
            leased.id,
            outcome,
            per_receiver=self._settings.webhook_calls_per_receiver,
        )

    def _judge(
        self, leased: Leased, attempt: DeliveryAttempt, asked_s: float | None, *, is_final: bool
    ) -> Outcome:
        """Returns what becomes of the delivery."""
        if not attempt.error:
            return Outcome("delivered", attempt)
        if attempt.status == 410:
            return Outcome("failed", attempt, is_gone=True)
        if is_final or leased.attempts > len(self._delays_s):
            return Outcome("failed", attempt)
        delay_s = self._delays_s[leased.attempts - 1]
        delay_s *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        return Outcome("retry", attempt, delay_s=max(delay_s, asked_s or 0.0))

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls what blocks in one of a few threads."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        return await to_thread.run_sync(lambda: call(*args, **kwargs), limiter=self._limiter)
