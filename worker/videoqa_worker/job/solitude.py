"""Solitude: the last attempt of a job that lost its workers runs with nothing beside it.

Who runs in a process that dies is a suspect, and all but one are innocent. So before a job is given up
on, it runs where nobody else can be to blame: it waits until the attempts of its worker have ended, and
none begins beside it. Both have an end, lest a long video keeps a worker idle.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ALONE_S", "PATIENCE_S", "Solitude"]

PATIENCE_S = 60.0
"""What runs longer beside it has proven to be no danger."""
ALONE_S = 60.0
"""So long nothing begins beside it."""
_LOOK_EVERY_S = 0.2


class Solitude:
    """Of one worker's attempts. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._running = 0
        self._waiting: deque[object] = deque()
        self._alone: object | None = None
        self._alone_since_s = 0.0

    def enter(self) -> bool:
        """An attempt begins; False: not now, somebody is alone or waits for it."""
        with self._changed:
            if self._waiting or self._occupied():
                return False
            self._running += 1
            return True

    def leave(self) -> None:
        """An attempt that has entered ends."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    @contextmanager
    def alone(self, check: Callable[[], None]) -> Iterator[None]:
        """An attempt that has entered goes on by itself, after those who asked before it.

        `check`: called while it waits; what it raises ends the waiting.
        """
        me = object()
        with self._changed:
            self._running -= 1
            self._waiting.append(me)
            self._changed.notify_all()
            try:
                self._wait(me, check)
                self._alone, self._alone_since_s = me, self._clock()
            finally:
                self._waiting.remove(me)
                self._running += 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                if self._alone is me:
                    self._alone = None
                self._changed.notify_all()

    def _wait(self, me: object, check: Callable[[], None]) -> None:
        until_s: float | None = None
        while True:
            check()
            if self._waiting[0] is me and not self._occupied():
                if until_s is None:
                    until_s = self._clock() + PATIENCE_S
                if not self._running or self._clock() >= until_s:
                    return
            self._changed.wait(_LOOK_EVERY_S)

    def _occupied(self) -> bool:
        return self._alone is not None and self._clock() - self._alone_since_s < ALONE_S
