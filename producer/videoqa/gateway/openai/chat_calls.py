"""ChatCalls: the calls that listen to the job of a chat, in Redis, since a retry may come to another gateway.

A job is canceled once its last caller has left. Clients that lost their connection come back within a second, with
the number of the retry in `x-stainless-retry-count`: they find the idempotency key of the call before them here, by
their API key and body, and join its job. A call is noted before its job is submitted, so that none is lost between.

Each call has a lease, which its gateway renews. If that gateway is killed, its leases run out, and another one takes
their calls for callers that left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

import redis
from starlette.concurrency import run_in_threadpool

from videoqa.async_client import AsyncClient
from videoqa.errors import LookupFailed, Unavailable, VideoQAError
from videoqa.jobs import Keys, digest_idempotency_key, translate_redis_errors
from videoqa.telemetry import log_events

__all__ = ["ChatCalls"]

log = logging.getLogger(__name__)

LEAVE_S = 1.2
"""Time after which the job of a caller that left is canceled, unless its retry has joined."""
JOIN_S = 300
"""Time for which a retry finds the job of the call before it."""
KEPT_S = 900
"""Lifetime of the list of a job's callers: longer than any call."""
LEASE_S = 15.0
"""Time after which a call whose gateway was killed counts as one whose caller left."""
RENEW_S = 4.0
"""Time between two renewals, each followed by a look at the leases of others."""
_MOST_SWEPT = 200


class ChatCalls:
    """The callers of all chats of one prefix; a job is named by the digest of its idempotency key."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._prefix = f"{prefix}:chat"
        self._leases = f"{self._prefix}:leases"
        self._keys = Keys(prefix)
        self._own: dict[str, str] = {}
        """The job of each call of this gateway, by the id of the call."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None

    def start(self, client: AsyncClient) -> None:
        """Begins to renew leases, and to cancel the jobs of calls whose gateway was killed.

        Arguments:
            client: reaches the jobs of all tenants.
        """
        self._keeping = asyncio.ensure_future(self._keep(client))

    async def find(self, client: AsyncClient, digest: str, tenant: str | None) -> str | None:
        """Returns the idempotency key of the last call with this digest, unless its job has ended without an answer."""
        key = await run_in_threadpool(self._get, f"{self._prefix}:last:{digest}")
        if key is None:
            return None
        job_id = await run_in_threadpool(self._find_job, digest_idempotency_key(tenant, key))
        if job_id is None:
            return key  # it was not submitted yet
        try:
            job = await client.get(job_id)
        except LookupFailed:
            return None
        return key if job.state in ("queued", "running", "succeeded") else None

    def _get(self, name: str) -> str | None:
        with translate_redis_errors(self._url):
            return cast("str | None", self._redis.get(name))

    def _find_job(self, of: str) -> str | None:
        with translate_redis_errors(self._url):
            return cast("str | None", self._redis.hget(self._keys.idempotency(of), "id"))

    async def join(self, of: str, call_id: str, digest: str, key: str) -> None:
        """Notes that a call listens to a job, which may be submitted afterwards, and that its retries belong there."""
        self._own[call_id] = of
        await run_in_threadpool(self._join, {call_id: of}, digest, key)

    def _join(self, calls: Mapping[str, str], digest: str = "", key: str = "") -> None:
        with translate_redis_errors(self._url):
            ends_s = self._read_clock() + LEASE_S
            pipe = self._redis.pipeline(transaction=True)
            for call_id, of in calls.items():
                callers = f"{self._prefix}:callers:{of}"
                pipe.sadd(callers, call_id)
                pipe.expire(callers, KEPT_S)
                pipe.zadd(self._leases, {f"{of}/{call_id}": ends_s})
            if digest:
                pipe.set(f"{self._prefix}:last:{digest}", key, ex=JOIN_S)
            pipe.execute()

    def _read_clock(self) -> float:
        seconds, microseconds = self._redis.time()
        return seconds + microseconds / 1e6

    def abandon(self, call_id: str) -> None:
        """Ends a call as a killed gateway would: its job is canceled unless the caller comes back to another one."""
        self._own.pop(call_id, None)

    def leave(self, client: AsyncClient, of: str, call_id: str, *, cancels: bool) -> None:
        """Notes, in the background, that a call has ended; cancels the job if that was its last caller."""
        self._own.pop(call_id, None)
        task = asyncio.ensure_future(self._leave(client, of, call_id, cancels=cancels))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, client: AsyncClient, of: str, call_id: str, *, cancels: bool) -> None:
        try:
            if cancels:
                # The lease stays until the job is canceled, if this gateway is killed meanwhile.
                await run_in_threadpool(self._remove_caller, of, call_id)
                await asyncio.sleep(LEAVE_S)
                await self._cancel_unheard(client, of)
            await run_in_threadpool(self._remove, of, call_id)
        except VideoQAError as error:
            log_events.CHAT_NOT_CANCELED.log(log, error=error)

    async def _cancel_unheard(self, client: AsyncClient, of: str) -> None:
        """Cancels a job without callers."""
        if await run_in_threadpool(self._list_callers, of):
            return
        job_id = await run_in_threadpool(self._find_job, of)
        if job_id is not None:
            with suppress(LookupFailed):
                await client.cancel(job_id)

    def _remove_caller(self, of: str, call_id: str) -> None:
        with translate_redis_errors(self._url):
            self._redis.srem(f"{self._prefix}:callers:{of}", call_id)

    def _remove(self, of: str, call_id: str) -> None:
        self._remove_caller(of, call_id)
        self._remove_lease(f"{of}/{call_id}")

    def _remove_lease(self, lease: str) -> None:
        with translate_redis_errors(self._url):
            self._redis.zrem(self._leases, lease)

    def _list_callers(self, of: str) -> set[str]:
        with translate_redis_errors(self._url):
            return cast("set[str]", self._redis.smembers(f"{self._prefix}:callers:{of}"))

    async def _keep(self, client: AsyncClient) -> None:
        renewed_at_s: float | None = None
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if self._own:
                    await run_in_threadpool(self._join, dict(self._own))
                # After an outage all leases have run out: the other gateways renew theirs first.
                if renewed_at_s is not None and time.monotonic() - renewed_at_s < LEASE_S:
                    await self._sweep(client)
                renewed_at_s = time.monotonic()
            except (VideoQAError, redis.RedisError) as error:
                log_events.CHAT_LEASES_NOT_RENEWED.log(log, error=error)
                renewed_at_s = None

    async def _sweep(self, client: AsyncClient) -> None:
        """Cancels the jobs of calls whose gateway was killed, unless they have other callers."""
        for lease in await run_in_threadpool(self._list_expired):
            of, _, call_id = lease.partition("/")
            if self._own.get(call_id) == of:
                continue
            try:
                await run_in_threadpool(self._remove_caller, of, call_id)
                await self._cancel_unheard(client, of)
            except Unavailable:
                raise
            except VideoQAError as error:
                # Only this call is broken; left here it would be looked at again and again.
                log_events.CHAT_LEASE_DROPPED.log(log, kept=lease[:200], error=error)
            await run_in_threadpool(self._remove_lease, lease)

    def _list_expired(self) -> list[str]:
        with translate_redis_errors(self._url):
            return cast(
                "list[str]",
                self._redis.zrangebyscore(
                    self._leases, "-inf", self._read_clock(), start=0, num=_MOST_SWEPT
                ),
            )

    async def close(self) -> None:
        """Waits for what goes on in the background."""
        if self._keeping is not None:
            self._keeping.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
