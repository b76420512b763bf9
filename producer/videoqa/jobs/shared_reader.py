"""SharedReader: the one reader of a client, for all its threads and event loops that wait for jobs.

One thread blocks in XREAD on the streams of all jobs that are waited for; another answers questions about
records, many in one round trip. So any number of waiters needs two connections, or three.

Each news ends the XREAD, and so does each read that joins it; the next XREAD costs the server time for each of
its streams. Where many wait, a second lane with a thread and a connection of its own therefore takes over
the reads that have waited for some seconds, as those of queued jobs do: the news of running jobs, and new
waiters, cost as much as there are of them.

A waiter is few objects, and a call of XREAD makes none for each stream: Python's garbage collector stops
all threads for the time that it takes to look at every object there is (150 ms with 5,000 waiters of 60 objects),
and does so the more often the more are made.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import redis

from videoqa.errors import ClientClosed, RedisUnavailable
from videoqa.forks import reopen_in_children
from videoqa.jobs.read_lane import IDLE_S, ReadLane
from videoqa.jobs.reader import LedgerReader
from videoqa.jobs.settling import AnyFuture, settle_all
from videoqa.telemetry import log_events

__all__ = ["SharedReader"]

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
F = TypeVar("F", bound=AnyFuture)

WAKE_AGAIN_S = 0.002
"""Time after which an XREAD is woken once more, if it had not begun to block yet."""
ROUND_TRIP = 500
"""Most questions in one round trip."""


class SharedReader:
    """Reads events and records for all waiters of a client. Thread-safe; its threads begin with the first wait."""

    def __init__(
        self,
        ledger: LedgerReader,
        connect: Callable[[], redis.Redis],
        *,
        poll_s: float | None = None,
    ) -> None:
        """Makes a reader without a connection.

        Arguments:
            ledger: reads what does not block, and wakes the XREAD.
            connect: makes the client whose one connection blocks.
            poll_s: limit of one XREAD on a server without CLIENT UNBLOCK; None: the server has it.
        """
        self._ledger = ledger
        self._connect = connect
        self._poll_s = poll_s
        self._is_closed = False
        self._reopen()
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Starts anew in a forked child, which has none of the parent's threads."""
        self._lock = threading.Lock()
        self._has_asks = threading.Condition(self._lock)
        self._asks: list[tuple[Callable[[Sequence[Any]], Sequence[Any]], Any, AnyFuture]] = []
        self._is_answering = False
        """True if the thread that answers questions runs."""
        self._lane = self._make_lane()
        """Lane that each read joins."""
        self._patient_lane = self._make_lane(feeder=self._lane)
        """Lane that takes over those that wait for long, where there are many."""

    def _make_lane(self, feeder: ReadLane | None = None) -> ReadLane:
        return ReadLane(
            self._ledger,
            self._connect,
            self._lock,
            wake=self._notify_desk,
            poll_s=self._poll_s,
            feeder=feeder,
        )

    @property
    def _lanes(self) -> tuple[ReadLane, ReadLane]:
        return self._lane, self._patient_lane

    @property
    def waiting(self) -> int:
        """Number of reads that wait for events."""
        with self._lock:
            return sum(not future.done() for lane in self._lanes for future in lane.list_futures())

    def close(self) -> None:
        """Ends all reads with ClientClosed; the threads end by themselves."""
        with self._lock:
            self._is_closed = True
            futures = [ask[2] for ask in self._asks]
            self._asks = []
            for lane in self._lanes:
                futures += lane.list_futures()
                lane.close()
            self._has_asks.notify()
        settle_all([(future, ClientClosed()) for future in futures])

    def ask(self, call: Callable[[Sequence[K]], Sequence[Any]], key: K, future: F) -> F:
        """Asks `call` about one key, together with all who ask it meanwhile; an error in its reply is raised.

        Arguments:
            future: gets the reply; one of a thread, or of an event loop.
        """
        with self._lock:
            self._check_open()
            self._asks.append((call, key, future))
            self._notify_desk()
        return future

    def read(self, job_id: str, *, after: str, future: F) -> F:
        """Reads the next events of a job after an id, as soon as there are any; cancel it to stop waiting."""
        with self._lock:
            self._check_open()
            key = self._ledger.keys.events(job_id)
            lane = self._patient_lane if self._patient_lane.covers(key, after) else self._lane
            lane.add(key, after, future)
            self._patient_lane.start_if_fed()
        return future

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed

    def _notify_desk(self) -> None:
        if not self._is_answering:
            self._is_answering = True
            threading.Thread(target=self._serve_asks, name="videoqa-reader", daemon=True).start()
        self._has_asks.notify()

    def _serve_asks(self) -> None:
        while (asks := self._take_asks()) is not None:
            by_call = defaultdict(list)
            for call, key, future in asks:
                by_call[call].append((key, future))
            for call, of_call in by_call.items():
                for chunk in _split(of_call, ROUND_TRIP):
                    replies: Sequence[Any]
                    try:
                        replies = call([key for key, _ in chunk])
                    except Exception as error:  # noqa: BLE001 - each waiter raises it
                        replies = [error] * len(chunk)
                    settle_all(
                        [(future, reply) for (_, future), reply in zip(chunk, replies, strict=True)]
                    )
            self._wake()

    def _take_asks(self) -> list[Any] | None:
        """Returns the questions so far, none if an XREAD is to be woken; None: the thread has to end."""
        with self._lock:
            if not (self._asks or self._lane.must_wake):
                self._has_asks.wait(IDLE_S)
            elif not self._asks:
                self._has_asks.wait(WAKE_AGAIN_S)
            asks, self._asks = self._asks, []
            if self._is_closed or not (asks or self._lane.must_wake):
                self._is_answering = False
                return None
            return asks

    def _wake(self) -> None:
        """Ends the XREAD in progress, if a read is to join it. One that does not block yet is woken later."""
        lane = self._lane
        with self._lock:
            blocked_id = lane.blocked_id if lane.must_wake else None
        if blocked_id is None:
            return
        try:
            is_woken = self._ledger.unblock(blocked_id)
        except (
            RedisUnavailable
        ) as error:  # the next XREAD takes the read along, at the latest in BLOCK_S
            log_events.READ_NOT_WOKEN.log(log, error=error)
            is_woken = True
        except ClientClosed:
            return
        with self._lock:
            if is_woken and lane.blocked_id == blocked_id:
                lane.must_wake = False


def _split(items: list[V], size: int) -> Iterable[list[V]]:
    return (items[start : start + size] for start in range(0, len(items), size))
