"""ReadLane: one thread that blocks in XREAD on the streams of many jobs, for all that wait for them.

A waiter registers one read at a time, behind the last event that it has: what it does not read yet stays in
Redis, so that nothing is lost, doubled, or kept here for a slow one.

A read that joins while XREAD blocks has it ended by CLIENT UNBLOCK, which writes nothing and also works
on a server that is full. XREAD costs the server time by the number of its streams; so a
lane pauses after each call by that number, and takes what came meanwhile together.

A second lane may take over the reads that have waited for some seconds. It does so between two of its own XREADs,
so that no read is ever outside of both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import redis

from videoqa.contract import Event
from videoqa.errors import RedisUnavailable
from videoqa.jobs.blocking_read import StreamRead, find_connection_id, read_streams
from videoqa.jobs.event_stream import EventsRead, parse_streams
from videoqa.jobs.reader import LedgerReader
from videoqa.jobs.settling import AnyFuture, settle_all

__all__ = ["IDLE_S", "ReadLane"]

BLOCK_S = 2.0
"""Limit of one XREAD; below the socket time-out, so that a dead Redis is noticed."""
IDLE_S = 5.0
"""Time after which a thread without work ends."""
PAUSE_PER_STREAM_S = 2e-6
"""Pause after an XREAD for each of its streams: 10 ms with 5,000."""
PATIENT_S = 5.0
"""Time after which a read that still waits is taken over by the second lane."""
MANY_STREAMS = 500
"""Number of streams from which there is a second lane."""
MOST_EVENTS = 200
"""Most events of one stream in one reply."""


class _Read:
    """A waiter's read of one stream, until there are events after `after`."""

    __slots__ = ("after", "future")

    def __init__(self, after: str, future: AnyFuture) -> None:
        self.after = after
        self.future = future

    def take(self, news: EventsRead | Exception) -> list[Event] | Exception:
        """Returns the events that are new to this waiter; none if it has them, or if none could be parsed."""
        if isinstance(news, Exception):
            return news
        after = _order(self.after)
        if news.last_id is not None and _order(news.last_id) > after:
            self.after = news.last_id
        return [event for event in news.events if _order(event.id) > after]


class _Waited:
    """A stream that is waited for, with its reads, and since when the first one waits."""

    __slots__ = ("packed", "reads", "since_s")

    def __init__(self, key: str, reads: list[_Read]) -> None:
        self.reads = reads
        self.packed = StreamRead(key, _find_least(reads))
        self.since_s = time.monotonic()

    def add(self, read: _Read) -> None:
        self.reads.append(read)
        if _order(read.after) < _order(self.packed.after):
            self.packed = StreamRead(self.packed.key, read.after)


def _find_least(reads: Sequence[_Read]) -> str:
    """Returns the least id after which one of the reads begins."""
    return reads[0].after if len(reads) == 1 else min((read.after for read in reads), key=_order)


class ReadLane:
    """Reads of streams that one blocking XREAD serves; its thread and its connection begin with the first read.

    The caller holds the lock for those methods that say so.
    """

    def __init__(
        self,
        ledger: LedgerReader,
        connect: Callable[[], redis.Redis],
        lock: threading.Lock,
        *,
        wake: Callable[[], None],
        poll_s: float | None,
        feeder: ReadLane | None = None,
    ) -> None:
        """Makes a lane without a thread.

        Arguments:
            wake: called, with the lock held, if the XREAD in progress has to be woken.
            feeder: the lane whose patient reads this one takes over.
        """
        self._ledger = ledger
        self._connect = connect
        self._lock = lock
        self._wake = wake
        self._poll_s = poll_s
        self._feeder = feeder
        self._has_reads = threading.Condition(lock)
        self._waited: dict[str, _Waited] = {}
        """Streams that are waited for, by their keys."""
        self.streams: dict[str, str] = {}
        """Streams of the XREAD in progress, each with the id after which it reads."""
        self.blocked_id: int | None = None
        """Id of the connection on which that XREAD blocks."""
        self.must_wake = False
        """True if a read is to join the XREAD in progress."""
        self._swept_s = time.monotonic()
        self._is_running = False
        self._is_closed = False

    def list_futures(self) -> list[AnyFuture]:
        """Lists the futures of all reads; call it with the lock held."""
        return [read.future for waited in self._waited.values() for read in waited.reads]

    def close(self) -> None:
        """Forgets all reads, and has the thread end by itself; call it with the lock held."""
        self._is_closed = True
        self._waited = {}
        self._has_reads.notify()

    def covers(self, key: str, after: str) -> bool:
        """Returns True if a read is served here without a new XREAD; call it with the lock held.

        So it is for a waiter that had no events for its time: its last read is not swept yet.
        """
        waited = self._waited.get(key)
        return waited is not None and _order(waited.packed.after) <= _order(after)

    def add(self, key: str, after: str, future: AnyFuture) -> None:
        """Registers a read; call it with the lock held."""
        read = _Read(after, future)
        if waited := self._waited.get(key):
            waited.add(read)
        else:
            self._waited[key] = _Waited(key, [read])
        self._start()
        self._has_reads.notify()
        since = self.streams.get(key)
        is_read = since is not None and _order(since) <= _order(after)
        if self.blocked_id is not None and not is_read:
            self.must_wake = True
            self._wake()

    def start_if_fed(self) -> None:
        """Starts the thread of a second lane, if many wait; call it with the lock held."""
        if self._is_fed():
            self._start()

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            threading.Thread(target=self._serve, name="videoqa-reader", daemon=True).start()

    def _is_fed(self) -> bool:
        feeder = self._feeder
        return feeder is not None and len(self._waited) + len(feeder._waited) >= MANY_STREAMS

    def _take_over(self) -> None:
        """Takes over the reads that have waited for long, if there are many."""
        if self._feeder is None or not self._is_fed():
            return
        theirs = self._feeder._waited
        since_s = time.monotonic() - PATIENT_S
        for key in [key for key, waited in theirs.items() if waited.since_s <= since_s]:
            waited = theirs.pop(key)
            if mine := self._waited.get(key):
                for read in waited.reads:
                    mine.add(read)
            else:
                self._waited[key] = waited

    def _serve(self) -> None:
        client: redis.Redis | None = None
        try:
            while self._wait_for_reads():
                streams: dict[str, str] = {}
                try:
                    client = client or self._connect()
                    with self._ledger.translate_errors():
                        blocked_id = None if self._poll_s else find_connection_id(client)
                        reads = self._begin(blocked_id)
                        streams = self.streams
                        reply = self._read_streams(client, reads) if reads else {}
                    found: Mapping[str, Any] = parse_streams(reply)
                except Exception as error:  # noqa: BLE001 - each waiter raises it
                    found = self._find_error(streams, error)
                self._end(found)
                time.sleep(PAUSE_PER_STREAM_S * len(streams))
        finally:
            if client is not None and self._poll_s is None:  # that one is the client's own
                client.close()

    def _read_streams(self, client: redis.Redis, reads: Sequence[StreamRead]) -> Any:
        if self._poll_s is None:
            return read_streams(client, reads, count=MOST_EVENTS, block_s=BLOCK_S)
        streams = cast("Any", {read.key: read.after for read in reads})
        return client.xread(streams, count=MOST_EVENTS, block=int(self._poll_s * 1000))

    def _wait_for_reads(self) -> bool:
        """Returns True once there are reads; False: the thread has to end."""
        with self._lock:
            self._take_over()
            if not self._waited:
                self._has_reads.wait(IDLE_S)
                self._take_over()
            if self._is_closed or not self._waited:
                self._is_running = False
                return False
            return True

    def _begin(self, blocked_id: int | None) -> list[StreamRead]:
        """Returns the streams of the next XREAD, each with the least id after which a waiter reads."""
        with self._lock:
            if time.monotonic() - self._swept_s > BLOCK_S:
                self._sweep()
            reads = [waited.packed for waited in self._waited.values()]
            self.streams = {read.key: read.after for read in reads}
            self.blocked_id, self.must_wake = blocked_id, False
            return reads

    def _sweep(self) -> None:
        """Drops the reads that were canceled; until then their streams are read in vain."""
        self._swept_s = time.monotonic()
        done = [
            (key, waited.reads)
            for key, waited in self._waited.items()
            if any(read.future.done() for read in waited.reads)
        ]
        for key, reads in done:
            self._replace(key, [read for read in reads if not read.future.done()])

    def _replace(self, key: str, reads: list[_Read]) -> None:
        if reads:
            self._waited[key] = _Waited(key, reads)
        else:
            del self._waited[key]

    def _find_error(self, streams: dict[str, str], error: Exception) -> dict[str, Exception]:
        """Returns the streams to whose readers an error belongs: one of another type fails the XREAD of all."""
        if streams and not isinstance(error, RedisUnavailable):
            try:
                replies = self._ledger.check_streams(list(streams))
            except Exception as other:  # noqa: BLE001 - each waiter raises it
                error, replies = other, []
            if bad := {key: one for key, one in zip(streams, replies, strict=False) if one}:
                return bad
        with self._lock:
            return dict.fromkeys(streams or self._waited, error)

    def _end(self, found: Mapping[str, Any]) -> None:
        """Passes each stream's events, or its error, to those that wait for them."""
        done: list[tuple[AnyFuture, Any]] = []
        with self._lock:
            self.streams, self.blocked_id, self.must_wake = {}, None, False
            for key, news in found.items():
                if key not in self._waited:
                    continue
                left = []
                for read in self._waited[key].reads:
                    if value := read.take(news):
                        done.append((read.future, value))
                    else:
                        left.append(read)
                self._replace(key, left)
        settle_all(done)
        for key, news in found.items():
            if not isinstance(news, Exception):
                self._ledger.warn_of_entries(key, news.unreadable)


def _order(event_id: str) -> tuple[int, int]:
    """Returns an event's id as numbers, by which Redis orders them."""
    ms, _, number = event_id.partition("-")
    return int(ms), int(number or 0)
