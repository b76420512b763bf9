"""Admits questions to vLLM: all at once, but one that must run alone while nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Gate"]


class Gate:
    """Used on one event loop. Who comes behind one that waits to run alone waits for its turn, too."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = self._waiting_alone = 0
        self._is_taken = False

    @asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncIterator[None]:
        """Waits until the block may run."""
        async with self._changed:
            if alone:
                await self._wait_alone()
            else:
                await self._changed.wait_for(lambda: not self._is_taken and not self._waiting_alone)
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._is_taken = self._is_taken and not alone
            async with self._changed:
                self._changed.notify_all()

    async def _wait_alone(self) -> None:
        self._waiting_alone += 1
        try:
            await self._changed.wait_for(lambda: not self._inside)
            self._is_taken = True
        finally:
            self._waiting_alone -= 1
            self._changed.notify_all()
