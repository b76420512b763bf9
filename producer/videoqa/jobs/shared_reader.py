"""SharedReader: the one reader of a client, for all its threads and event loops that wait for jobs.

One thread blocks in XREAD on the streams of all jobs that are waited for; another answers questions about
records, many in one round trip. So any number of waiters needs two connections. A waiter registers one read at
a time, behind the last event that it has: what it does not read yet stays in Redis, so that nothing is
lost, doubled, or kept here for a slow one.

A read that joins while XREAD blocks has it ended by CLIENT UNBLOCK, which writes nothing and also works
on a server that is full. XREAD costs the server time by the number of its streams; so the
reader pauses after each call by that number, and takes what came meanwhile together.

A waiter is few objects, and a call of XREAD makes none for each stream: Python's garbage collector stops
all threads for the time that it takes to look at every object there is (150 ms with 5,000 waiters of 60 objects),
and does so the more often the more are made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import redis

from videoqa.contract import Event
from videoqa.errors import ClientClosed, RedisUnavailable
from videoqa.forks import reopen_in_children
from videoqa.jobs.blocking_read import StreamRead, read_streams
from videoqa.jobs.event_stream import EventsRead, parse_streams
from videoqa.jobs.reader import LedgerReader
from videoqa.jobs.settling import AnyFuture, settle_all

__all__ = ["SharedReader"]

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
F = TypeVar("F", bound=AnyFuture)

BLOCK_S = 2.0
"""Limit of one XREAD; below the socket time-out, so that a dead Redis is noticed."""
IDLE_S = 5.0
"""Time after which a thread without work ends."""
WAKE_AGAIN_S = 0.002
"""Time after which an XREAD is woken once more, if it had not begun to block yet."""
PAUSE_PER_STREAM_S = 2e-6
"""Pause after an XREAD for each of its streams: 10 ms with 5,000."""
ROUND_TRIP = 500
"""Most questions in one round trip."""
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
    """A stream that is waited for, with its reads."""

    __slots__ = ("packed", "reads")

    def __init__(self, key: str, reads: list[_Read]) -> None:
        self.reads = reads
        self.packed = StreamRead(key, _find_least(reads))

    def add(self, read: _Read) -> None:
        self.reads.append(read)
        if _order(read.after) < _order(self.packed.after):
            self.packed = StreamRead(self.packed.key, read.after)


def _find_least(reads: Sequence[_Read]) -> str:
    """Returns the least id after which one of the reads begins."""
    return reads[0].after if len(reads) == 1 else min((read.after for read in reads), key=_order)


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
        self._has_reads = threading.Condition(self._lock)
        self._has_asks = threading.Condition(self._lock)
        self._waited: dict[str, _Waited] = {}
        """Streams that are waited for, by their keys."""
        self._asks: list[tuple[Callable[[Sequence[Any]], Sequence[Any]], Any, AnyFuture]] = []
        self._streams: dict[str, str] = {}
        """Streams of the XREAD in progress, each with the id after which it reads."""
        self._blocked_id: int | None = None
        """Id of the connection on which that XREAD blocks."""
        self._must_wake = False
        self._swept_s = time.monotonic()
        self._running: set[Callable[[], None]] = set()
        """The methods that have a thread."""

    @property
    def waiting(self) -> int:
        """Number of reads that wait for events."""
        with self._lock:
            return sum(not read.future.done() for read in self._list_reads())

    def _list_reads(self) -> list[_Read]:
        return [read for waited in self._waited.values() for read in waited.reads]

    def close(self) -> None:
        """Ends all reads with ClientClosed; both threads end by themselves."""
        with self._lock:
            self._is_closed = True
            futures = [read.future for read in self._list_reads()] + [ask[2] for ask in self._asks]
            self._waited, self._asks = {}, []
            self._has_reads.notify()
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
        key = self._ledger.keys.events(job_id)
        read = _Read(after, future)
        with self._lock:
            self._check_open()
            if waited := self._waited.get(key):
                waited.add(read)
            else:
                self._waited[key] = _Waited(key, [read])
            self._start(self._serve_reads)
            self._has_reads.notify()
            since = self._streams.get(key)
            is_read = since is not None and _order(since) <= _order(after)
            if self._blocked_id is not None and not is_read:
                self._must_wake = True
                self._notify_desk()
        return future

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed

    def _notify_desk(self) -> None:
        self._start(self._serve_asks)
        self._has_asks.notify()

    def _start(self, serve: Callable[[], None]) -> None:
        if serve not in self._running:
            self._running.add(serve)
            threading.Thread(target=serve, name="videoqa-reader", daemon=True).start()

    # -- questions

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
        """Returns the questions so far, none if XREAD is to be woken; None: the thread has to end."""
        with self._lock:
            if not (self._asks or self._must_wake):
                self._has_asks.wait(IDLE_S)
            elif not self._asks:
                self._has_asks.wait(WAKE_AGAIN_S)
            asks, self._asks = self._asks, []
            if self._is_closed or not (asks or self._must_wake):
                self._running.discard(self._serve_asks)
                return None
            return asks

    def _wake(self) -> None:
        """Ends the XREAD in progress, if a read is to join it. One that does not block yet is woken later."""
        with self._lock:
            blocked_id = self._blocked_id if self._must_wake else None
        if blocked_id is None:
            return
        try:
            is_woken = self._ledger.unblock(blocked_id)
        except (
            RedisUnavailable
        ) as error:  # the next XREAD takes the read along, at the latest in BLOCK_S
            log.debug("a blocking read could not be woken: %s", error)
            is_woken = True
        except ClientClosed:
            return
        with self._lock:
            if is_woken and self._blocked_id == blocked_id:
                self._must_wake = False

    # -- events

    def _serve_reads(self) -> None:
        client: redis.Redis | None = None
        try:
            while self._wait_for_reads():
                streams: dict[str, str] = {}
                try:
                    client = client or self._connect()
                    with self._ledger.translate_errors():
                        blocked_id = None if self._poll_s else int(client.client_id())
                        reads = self._begin(blocked_id)
                        streams = self._streams
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
            if not self._waited:
                self._has_reads.wait(IDLE_S)
            if self._is_closed or not self._waited:
                self._running.discard(self._serve_reads)
                return False
            return True

    def _begin(self, blocked_id: int | None) -> list[StreamRead]:
        """Returns the streams of the next XREAD, each with the least id after which a waiter reads."""
        with self._lock:
            if time.monotonic() - self._swept_s > BLOCK_S:
                self._sweep()
            reads = [waited.packed for waited in self._waited.values()]
            self._streams = {read.key: read.after for read in reads}
            self._blocked_id, self._must_wake = blocked_id, False
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
            self._streams, self._blocked_id, self._must_wake = {}, None, False
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


def _split(items: list[V], size: int) -> Iterable[list[V]]:
    return (items[start : start + size] for start in range(0, len(items), size))
