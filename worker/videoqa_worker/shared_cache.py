"""A cache whose values are computed once for all threads that need one at the same time.

The first thread to ask for a key computes the value, on its own thread and for its own job; the others
wait for it, each as long as it likes. If the first one gives up or fails, the next takes over, unless all
would fail in the same way. Values stay for later callers up to a number of bytes, entries and seconds, and the
least recently used go first. Knows nothing of what it holds.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Shared", "SharedCache", "SharedCounts"]

T = TypeVar("T")

CHECK_EVERY_S = 0.1
"""Interval at which a waiting thread calls `check`, and so notices that its job is cancelled."""


@dataclass(frozen=True)
class Shared(Generic[T]):
    """A value, and whether this caller computed it."""

    value: T
    is_own: bool


@dataclass(frozen=True)
class SharedCounts:
    """Counters of one cache since the start."""

    computed: int = 0
    found: int = 0
    """Callers that found a value in the cache."""
    awaited: int = 0
    """Callers that got the value which another thread was computing."""
    entries: int = 0
    size_bytes: int = 0


@dataclass(eq=False)
class _Flight(Generic[T]):
    """A computation under way."""

    is_over: threading.Event = field(default_factory=threading.Event)
    value: list[T] = field(default_factory=list)
    """The value, if it is for all."""
    error: Exception | None = None
    """The error, if all would have it."""


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    size_bytes: int
    stored_s: float


def _ignore() -> None:
    pass


def _always(value: object) -> bool:
    return True


def _never(error: Exception) -> bool:
    return False


class SharedCache(Generic[T]):
    """Thread-safe. Values are shared, and so must not be changed."""

    def __init__(
        self,
        limit_bytes: int,
        *,
        size_of: Callable[[T], int],
        max_entries: int = 1024,
        keep_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Arguments:
            limit_bytes: of all entries together; 0: only threads that need a value at the same time share it.
            keep_s: a value is found for so long; None: until it is evicted.
        """
        self._limit_bytes, self._size_of = limit_bytes, size_of
        self._max_entries = max_entries
        self._keep_s, self._clock = keep_s, clock
        self._entries: OrderedDict[bytes, _Entry[T]] = OrderedDict()
        self._flights: dict[bytes, _Flight[T]] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._is_closed = False
        self._size_bytes = self._computed = self._found = self._awaited = 0

    @property
    def counts(self) -> SharedCounts:
        """The counters now."""
        with self._lock:
            return SharedCounts(
                self._computed, self._found, self._awaited, len(self._entries), self._size_bytes
            )

    def get(
        self,
        key: bytes,
        compute: Callable[[], T],
        *,
        check: Callable[[], None] = _ignore,
        may_share: Callable[[T], bool] = _always,
        is_final: Callable[[Exception], bool] = _never,
    ) -> Shared[T]:
        """Returns the value of a key: a cached one, another thread's, or that of `compute`.

        Arguments:
            check: called every 0.1 s while waiting for another thread; may raise.
            may_share: False for a value that is this caller's alone.
            is_final: True for an error that every caller would have; those who wait get a copy of it.

        Raises:
            Whatever `compute` and `check` raise.
        """
        while True:
            with self._lock:
                cached = self._find(key)
                if cached is not None:
                    self._found += 1
                    return Shared(cached.value, is_own=False)
                flight = self._flights.get(key)
                is_first = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
            if is_first:
                return Shared(self._compute(key, flight, compute, may_share, is_final), is_own=True)
            while not flight.is_over.wait(CHECK_EVERY_S):
                check()
            check()
            if flight.error is not None:
                raise copy.copy(flight.error)  # each caller may add to its own
            if flight.value:
                with self._lock:
                    self._awaited += 1
                return Shared(flight.value[0], is_own=False)

    def clear(self) -> None:
        """Evicts everything."""
        with self._lock:
            self._entries.clear()
            self._size_bytes = 0

    def close(self) -> None:
        """Evicts everything, and stores nothing from now on."""
        with self._lock:
            self._is_closed = True
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self.clear()

    def expire(self) -> None:
        """Evicts what is too old; called by a timer, so that an idle process holds nothing for long."""
        with self._lock:
            self._timer = None
            self._drop_old()
            self._set_timer()

    def _compute(
        self,
        key: bytes,
        flight: _Flight[T],
        compute: Callable[[], T],
        may_share: Callable[[T], bool],
        is_final: Callable[[Exception], bool],
    ) -> T:
        try:
            value = compute()
            if may_share(value):
                flight.value.append(value)
        except Exception as error:
            if is_final(error):
                flight.error = copy.copy(error)
            raise
        finally:
            with self._lock:
                del self._flights[key]
                if flight.value:
                    self._computed += 1
                    self._store(key, flight.value[0])
            flight.is_over.set()
        return value

    def _find(self, key: bytes) -> _Entry[T] | None:
        self._drop_old()
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def _store(self, key: bytes, value: T) -> None:
        size_bytes = self._size_of(value)
        if self._is_closed or size_bytes > self._limit_bytes or self._limit_bytes == 0:
            return
        self._entries[key] = _Entry(value, size_bytes, self._clock())
        self._size_bytes += size_bytes
        while self._size_bytes > self._limit_bytes or len(self._entries) > self._max_entries:
            self._evict(next(iter(self._entries)))
        self._set_timer()

    def _drop_old(self) -> None:
        if self._keep_s is None:
            return
        until_s = self._clock() - self._keep_s
        for key in [key for key, entry in self._entries.items() if entry.stored_s <= until_s]:
            self._evict(key)

    def _evict(self, key: bytes) -> None:
        self._size_bytes -= self._entries.pop(key).size_bytes

    def _set_timer(self) -> None:
        """Has `expire` called when the oldest entry is due; called with the lock held."""
        if self._keep_s is None or self._timer is not None or not self._entries or self._is_closed:
            return
        oldest_s = min(entry.stored_s for entry in self._entries.values())
        due_in_s = max(0.01, oldest_s + self._keep_s - self._clock())
        self._timer = threading.Timer(due_in_s, self.expire)
        self._timer.daemon = True
        self._timer.start()
