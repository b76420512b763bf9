"""Watchdog: ends the process when its engine hangs or its device is broken.

Neither heals by itself: a CUDA error stays until the process ends, and a thread that hangs in a
kernel cannot be stopped. The attempts that ran fail, counted and retryable, so that a job which
does this to every engine stops doing it; a supervisor starts the worker again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol, Self

from videoqa.errors import EngineStopped
from videoqa_worker import log_events
from videoqa_worker.engine import Stats

__all__ = ["BROKEN_STATUS", "Watchdog", "Watched"]

log = logging.getLogger(__name__)

BROKEN_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""
_LOOK_EVERY_S = 0.5
_GOODBYE_S = 15.0
"""Time for the attempts to record that they failed; later their leases end by themselves."""


class Watched(Protocol):
    """The part of an engine that the watchdog looks at."""

    @property
    def ready(self) -> bool: ...
    @property
    def stats(self) -> Stats: ...


class Watchdog:
    """Looks at a started engine until it is closed. A context manager, to be left before the engine."""

    def __init__(
        self,
        engine: Watched,
        *,
        step_timeout_s: float,
        break_off: Callable[[EngineStopped], None],
        running: Callable[[], int],
        leave: Callable[[int], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Arguments:
            step_timeout_s: longest that one step of the engine may take.
            break_off: ends all attempts with this error, and lets no more begin.
            running: how many attempts have not ended.
            leave: ends the process with this status.
        """
        self._engine = engine
        self._step_timeout_s = step_timeout_s
        self._break_off = break_off
        self._running = running
        self._leave = leave
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=_GOODBYE_S)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            fault = self.inspect()
            if fault is not None:
                self._end(fault)
                return

    def inspect(self) -> str | None:
        """Returns the fault of the engine, or None."""
        if not self._engine.ready:
            return "the engine's device is broken"
        stats = self._engine.stats
        since_s = self._clock() - stats.last_step_at
        if stats.running and since_s > self._step_timeout_s:
            return f"the engine has been in one step for {since_s:.0f} s"
        return None

    def _end(self, fault: str) -> None:
        if self._stop.is_set():
            return
        log_events.WORKER_ENDS.log(log, fault=fault)
        self._break_off(EngineStopped(f"{fault}; the worker is started again"))
        until_s = time.monotonic() + _GOODBYE_S
        while self._running() and time.monotonic() < until_s:
            time.sleep(0.05)
        self._leave(BROKEN_STATUS)
