"""BulkRunner: carries bulk actions out in one gateway process, each for as long as its lease is held.

An action whose gateway was killed is taken on by any other one, at the batch behind the last one that was written.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from contextlib import suppress

import redis

from videoqa import errors
from videoqa.gateway.access.caller import Caller
from videoqa.gateway.resources import Resources
from videoqa.telemetry import log_events

__all__ = ["BulkRunner"]

log = logging.getLogger(__name__)

MOST_RUNNING = 4
"""Actions that one process carries out at a time."""
LOOK_S = 1.0
PAUSE_S = 0.01
"""Time between two batches, in which Redis serves others."""
RETRY_S = 5.0
"""Time after which an action is tried again whose batch has failed, as without Redis."""
MOST_FAULTS = 5
"""Batches of an action that fail in this process by a fault of ours before it is stopped."""


class BulkRunner:
    """The bulk actions that this process carries out."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._running: set[asyncio.Task[None]] = set()
        self._faults: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    def start(self) -> None:
        """Begins to look for actions."""
        self._looking = asyncio.create_task(self._look())

    def wake(self) -> None:
        """Has an action looked for at once, since one was begun."""
        self._woken.set()

    async def close(self) -> None:
        """Gives all actions back."""
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _look(self) -> None:
        resources = self._resources
        while not resources.stop.is_set():
            found, holder = None, secrets.token_hex(8)
            try:
                if len(self._running) < MOST_RUNNING:
                    found = await resources.run(resources.bulk.take, holder)
            except (errors.VideoQAError, redis.RedisError) as error:
                log_events.BULKS_NOT_FOUND.log(log, error=error)
            if found is not None:
                task = asyncio.create_task(self._run(found, holder))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                continue
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()

    async def _run(self, bulk_id: str, holder: str) -> None:
        """Carries an action out until it has ended, or is another process's."""
        resources = self._resources
        try:
            while not resources.stop.is_set():
                if await self._advance(bulk_id, holder):
                    return
                await asyncio.sleep(PAUSE_S)
            await resources.run(resources.bulk.release, bulk_id, holder)
        except (errors.BulkActionNotFound, errors.RecordUnreadable) as error:
            await self._stop(bulk_id, holder, error)
        except (errors.VideoQAError, redis.RedisError) as error:
            log_events.BULK_AGAIN.log(log, bulk_id=bulk_id, error=error)
            await self._rest(bulk_id, holder)
        except Exception as error:  # noqa: BLE001 - it is logged
            log_events.BULK_FAILED.log(log, bulk_id=bulk_id, exc_info=True)
            await self._rest(bulk_id, holder, error)

    async def _advance(self, bulk_id: str, holder: str) -> bool:
        """Changes the jobs of one batch; returns True if none is left for this process."""
        resources = self._resources
        action, key_id = await resources.run(resources.bulk.find_with_key, bulk_id)
        if action.has_ended:
            return True
        if not key_id:  # begun by a client of Redis, which has left it
            client = resources.find_client(action.tenant)
            found = await client._advance_bulk(bulk_id, holder, lambda _: None)
        else:
            caller = await Caller.find(key_id, resources)
            if caller is None:
                why = "its API key is no longer valid"
                await resources.run(resources.bulk.end, bulk_id, holder, "stopped", why)
                return True
            found = await caller.advance_bulk(bulk_id, holder)
        is_taken = (found.looked_at, found.updated_at) == (action.looked_at, action.updated_at)
        return found.has_ended or is_taken

    async def _rest(self, bulk_id: str, holder: str, fault: Exception | None = None) -> None:
        """Waits until the action is to be tried again; stops one that goes no further by a fault that stays."""
        if fault is not None:
            self._faults[bulk_id] += 1
            if self._faults[bulk_id] >= MOST_FAULTS:
                await self._stop(bulk_id, holder, fault)
                return
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._resources.stop.wait()

    async def _stop(self, bulk_id: str, holder: str, fault: Exception) -> None:
        """Ends an action that cannot go on."""
        del self._faults[bulk_id]
        why = f"a batch of it cannot be done, {fault!s:.300}; what it has changed stays"
        with suppress(errors.VideoQAError, redis.RedisError):
            await self._resources.run(self._resources.bulk.end, bulk_id, holder, "stopped", why)
