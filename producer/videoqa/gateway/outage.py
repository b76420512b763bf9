"""Outage: while Redis does not answer, calls fail at once, so that none waits behind others for a thread.

A call that times out takes some seconds of one of a few threads. So after the first one, others are refused with its
error, also those that waited for a thread already, until Redis answers again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from videoqa.async_client import AsyncClient
from videoqa.errors import RedisUnavailable
from videoqa.telemetry import log_events

__all__ = ["GuardedClient", "Outage"]

T = TypeVar("T")

log = logging.getLogger(__name__)

SLOW_S = 1.0
"""Time from which a failed call counts as one that Redis did not answer; others fail at once anyway."""
RETRY_S = 0.5
"""Time between two looks at a Redis that does not answer."""
TELL_EVERY_S = 10.0
"""Time between two lines of the log with the reason, which callers are not told."""


class Outage:
    """The last time that Redis did not answer, and a thread that waits for its end. Thread-safe."""

    def __init__(self, ping: Callable[[], object]) -> None:
        """
        Arguments:
            ping: a call of Redis that raises RedisUnavailable while it does not answer.
        """
        self._ping = ping
        self._lock = threading.Lock()
        self._error: RedisUnavailable | None = None
        self._is_closed = threading.Event()
        self._told_at_s = -TELL_EVERY_S

    def run(self, call: Callable[[], T]) -> T:
        """Makes a call; raises RedisUnavailable at once during an outage."""
        before = self._error
        if before is not None:
            raise RedisUnavailable(before.message, param=before.param)
        begun_s = time.monotonic()
        try:
            return call()
        except RedisUnavailable as error:
            self._tell(error)
            if time.monotonic() - begun_s >= SLOW_S:
                self._begin(error)
            raise

    def close(self) -> None:
        """Ends the thread."""
        self._is_closed.set()

    def _tell(self, error: RedisUnavailable) -> None:
        now_s = time.monotonic()
        if now_s - self._told_at_s >= TELL_EVERY_S:
            self._told_at_s = now_s
            log_events.REDIS_AWAY.log(log, error=error.message)

    def _begin(self, error: RedisUnavailable) -> None:
        with self._lock:
            if self._error is None and not self._is_closed.is_set():
                self._error = error
                threading.Thread(target=self._wait, name="videoqa-outage", daemon=True).start()

    def _wait(self) -> None:
        """Waits until Redis answers; no caller does, since such a call takes as long as its time-out."""
        while not self._is_closed.wait(RETRY_S):
            with suppress(RedisUnavailable):
                self._ping()
                break
        self._error = None


class GuardedClient(AsyncClient):
    """A client whose calls fail at once during an outage."""

    outage: Outage

    async def _run(self, call: Callable[[], T], *, reads_storage: bool = False) -> T:
        return await super()._run(partial(self.outage.run, call), reads_storage=reads_storage)
