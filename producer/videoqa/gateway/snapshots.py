"""Snapshots: what pages show, read once for all who look at the same moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from videoqa.gateway.redis_clock import RedisClock

__all__ = ["KEPT_S", "Snapshots"]

KEPT_S = 2.0
"""Time for which a snapshot is shown; 50 open pages cost what one costs."""
MOST_KEPT = 500
"""Most snapshots that are kept; one of a page with 100 rows has some 200 kB."""
T = TypeVar("T")


@dataclass
class _Entry:
    task: asyncio.Task[Any]
    ends_s: float = float("inf")
    """Time on the monotonic clock from which it is no longer shown; never while it is read."""


class Snapshots:
    """The snapshots of one gateway; for one event loop."""

    def __init__(self) -> None:
        self.clock = RedisClock()
        self._entries: dict[Hashable, _Entry] = {}

    async def take(
        self, key: Hashable, make: Callable[[], Awaitable[T]], kept_s: float = KEPT_S
    ) -> T:
        """Returns what `make` returned a moment ago, or calls it; callers who come meanwhile await the same call."""
        found = self._entries.get(key)
        if found is None or found.ends_s < time.monotonic():
            found = self._entries[key] = _Entry(asyncio.ensure_future(_call(make)))
            found.task.add_done_callback(lambda task: self._end(key, found, kept_s))
        # A caller that hangs up does not end the call of the others.
        return cast(T, await asyncio.shield(found.task))

    def drop(self) -> None:
        """Drops all snapshots after a change, so that whoever made it sees it on the next page."""
        self._entries.clear()

    def _end(self, key: Hashable, entry: _Entry, kept_s: float) -> None:
        failed = entry.task.cancelled() or entry.task.exception() is not None
        entry.ends_s = time.monotonic() + (0 if failed else kept_s)
        if failed and self._entries.get(key) is entry:
            del self._entries[key]
        if len(self._entries) > MOST_KEPT:
            self._forget()

    def _forget(self) -> None:
        now_s = time.monotonic()
        for key in [key for key, entry in self._entries.items() if entry.ends_s < now_s]:
            del self._entries[key]
        for key in list(self._entries)[: max(0, len(self._entries) - MOST_KEPT)]:
            del self._entries[key]


async def _call(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
