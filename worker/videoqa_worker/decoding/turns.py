"""So many at a time, first come first served, and who waits can be called off."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["CHECK_EVERY_S", "Turn", "Turns"]

CHECK_EVERY_S = 0.1
"""How soon a cancel is heard while waiting."""

Check = Callable[[], None]


class Turns:
    """A semaphore with a queue."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def turn(self, check: Check) -> Iterator[Turn]:
        """Waits for a turn. Raises what `check` raises meanwhile."""
        turn = Turn(self, check)
        turn.take(first=False)
        try:
            yield turn
        finally:
            turn.give()

    def take(self, check: Check, *, first: bool) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            called = threading.Event()
            if first:
                self._queue.appendleft(called)
            else:
                self._queue.append(called)
        try:
            while not called.wait(CHECK_EVERY_S):
                check()
        except BaseException:
            self._leave(called)
            raise

    def give(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1

    def _leave(self, called: threading.Event) -> None:
        with self._lock:
            if not called.is_set():
                self._queue.remove(called)
                return
        self.give()


class Turn:
    """One thread's place among those whose turn it is."""

    def __init__(self, turns: Turns, check: Check) -> None:
        self._turns, self._check = turns, check
        self._held = False

    @contextmanager
    def left(self) -> Iterator[None]:
        """Lets another go on meanwhile; comes back before those who have not begun.

        For who waits amid one thing. Two who did so between many things would have all turns.

        Raises what `check` raises while coming back; then, and if the body raises, the turn is
        over.
        """
        self.give()
        yield
        self.take(first=True)

    @contextmanager
    def passed(self) -> Iterator[None]:
        """The same, but comes back behind all who wait by then."""
        self.give()
        yield
        self.take(first=False)

    def take(self, *, first: bool) -> None:
        self._turns.take(self._check, first=first)
        self._held = True

    def give(self) -> None:
        if self._held:
            self._held = False
            self._turns.give()
