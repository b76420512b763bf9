"""A FIFO semaphore whose waiters can be cancelled."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["CHECK_EVERY_S", "Turn", "Turns"]

CHECK_EVERY_S = 0.1
"""Interval at which a waiting thread calls `check`, and so notices that its job is cancelled."""

Check = Callable[[], None]


class Turns:
    """A semaphore that admits `count` threads at a time, in the order of asking."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def wait_turn(self, check: Check) -> Iterator[Turn]:
        """Waits for a turn, holds it during the body; raises what `check` raises while waiting."""
        turn = Turn(self, check)
        turn.acquire(front=False)
        try:
            yield turn
        finally:
            turn.release()

    def acquire(self, check: Check, *, front: bool) -> None:
        """Waits for a turn, at the front or the end of the queue."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            called = threading.Event()
            if front:
                self._queue.appendleft(called)
            else:
                self._queue.append(called)
        try:
            while not called.wait(CHECK_EVERY_S):
                check()
        except BaseException:
            self._cancel(called)
            raise

    def release(self) -> None:
        """Hands the turn to the first thread of the queue."""
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1

    def _cancel(self, called: threading.Event) -> None:
        with self._lock:
            if not called.is_set():
                self._queue.remove(called)
                return
        self.release()


class Turn:
    """The turn of one thread, which it may hold or have handed on."""

    def __init__(self, turns: Turns, check: Check) -> None:
        self._turns, self._check = turns, check
        self._held = False

    @contextmanager
    def yield_turn(self, *, front: bool) -> Iterator[None]:
        """Gives the turn to another thread during the body, and waits for it again afterwards.

        Arguments:
            front: queues before the threads that wait for their first turn. Meant for a thread
                that waits amid one task: two that did so between many tasks would keep all
                turns to themselves. False: queues at the end.

        Raises:
            Whatever `check` raises while waiting. Then, and if the body raises, the turn is over.
        """
        self.release()
        yield
        self.acquire(front=front)

    def acquire(self, *, front: bool) -> None:
        self._turns.acquire(self._check, front=front)
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._turns.release()
