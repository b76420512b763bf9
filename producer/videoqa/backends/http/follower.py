"""Follower: the one reader of a client of a gateway, for all its threads and event loops that wait for jobs.

One thread runs an event loop. A few streams of `POST /v1/jobs:follow`, the lanes, bring the events of all jobs that are
waited for: a waiter has no connection of its own. Jobs that are newly waited for share a new lane; where there would be
too many, the smallest is ended and its jobs move along. Questions about records are collected and sent together.

A waiter registers one read at a time, behind the last event that it has, as with Redis. If a lane breaks, or its
gateway stops, the reads in it end, and `EventCursor` decides how to go on: it reads again behind its last event.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from videoqa import errors
from videoqa.backends.http.connection import (
    CONNECT_S,
    GatewayConnection,
    explain_transport,
    refuse_redirect,
)
from videoqa.backends.http.problems import check_problem, make_error, read_problem
from videoqa.backends.http.server_events import ServerEventParser
from videoqa.contract import Event
from videoqa.forks import reopen_in_children
from videoqa.jobs import AnyFuture, settle_all

if TYPE_CHECKING:
    import httpx2

__all__ = ["Follower"]

K = TypeVar("K", bound=Hashable)
F = TypeVar("F", bound=AnyFuture)

LANES = 4
"""Most streams while they have room; each takes `PER_LANE` jobs."""
PER_LANE = 1000
PER_QUESTION = 500
"""Most jobs of one question."""
GATHER_S = 0.01
"""Time in which what is asked next joins what is asked now."""
IDLE_S = 5.0
"""Time after which a thread without work ends, and the events of a job that nobody reads are dropped."""
SILENCE_S = 35.0
"""Time without a byte after which a stream is given up; a gateway sends a comment each 10 s."""
SHORT_S = 0.3
"""Life of a stream that ends for no reason to be seen, below which the next one is delayed."""
MOST_EVENTS = 2000
"""Events of a job that are kept for waiters that read slowly; what they missed is asked for again."""


def _order(event_id: str) -> tuple[int, int]:
    at, _, number = event_id.partition("-")
    return int(at), int(number or 0)


class _Read:
    """A waiter's read of a job's events, until there are some after `after`."""

    __slots__ = ("after", "future")

    def __init__(self, after: str, future: AnyFuture) -> None:
        self.after = after
        self.future = future


class _Topic:
    """A job that is followed: the events after `start` that have come, and the reads that wait for the next ones."""

    def __init__(self, job_id: str, start: str) -> None:
        self.job_id = job_id
        self.start = start
        self.last = start
        """Id of the last event that came: a lane resumes there."""
        self.events: list[Event] = []
        self.reads: list[_Read] = []
        self.is_over = False
        """True if no lane follows it any more."""
        self.used_s = time.monotonic()

    def find_after(self, after: str) -> list[Event]:
        least = _order(after)
        return [event for event in self.events if _order(event.id) > least]

    def add(self, event: Event) -> None:
        self.last = event.id
        self.events.append(event)
        if len(self.events) > MOST_EVENTS:
            self.start = self.events[MOST_EVENTS // 2 - 1].id
            del self.events[: MOST_EVENTS // 2]

    def take_ready(self) -> list[tuple[AnyFuture, Any]]:
        """Takes the reads for which there are events, with those."""
        ready: list[tuple[AnyFuture, Any]] = []
        left = []
        for read in self.reads:
            found = self.find_after(read.after)
            if found:
                ready.append((read.future, found))
            elif not read.future.done():
                left.append(read)
        self.reads = left
        return ready

    def take_all(self, value: Any) -> list[tuple[AnyFuture, Any]]:
        """Takes all reads, each with this value."""
        taken = [(read.future, value) for read in self.reads]
        self.reads = []
        return taken

    def is_idle(self) -> bool:
        self.reads = [read for read in self.reads if not read.future.done()]
        if self.reads:
            self.used_s = time.monotonic()
        return time.monotonic() - self.used_s > IDLE_S


class _Lane:
    """One stream, and the jobs that it follows."""

    def __init__(self, topics: Sequence[_Topic]) -> None:
        self.topics = {topic.job_id: topic for topic in topics}
        self.task: asyncio.Task[None] | None = None


class Follower:
    """Reads events and records for all waiters of a client. Thread-safe; its thread begins with the first wait."""

    def __init__(self, connection: GatewayConnection) -> None:
        self._connection = connection
        self._is_closed = False
        self._reopen()
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Starts anew in a forked child, which has none of the parent's threads."""
        self._lock = threading.Lock()
        self._asks: list[tuple[Callable[[Sequence[Any]], Sequence[Any]], Any, AnyFuture]] = []
        self._topics: dict[str, _Topic] = {}
        self._new: list[_Topic] = []
        """Jobs that no lane follows yet."""
        self._lanes: list[_Lane] = []
        self._wake: Callable[[], object] | None = None
        """Wakes the thread; None: none runs."""

    @property
    def waiting(self) -> int:
        """Number of reads that wait for events."""
        with self._lock:
            return sum(
                not read.future.done() for topic in self._topics.values() for read in topic.reads
            )

    @property
    def lanes(self) -> int:
        """Number of streams."""
        with self._lock:
            return len(self._lanes)

    def close(self) -> None:
        """Ends all reads with ClientClosed; the thread ends by itself."""
        with self._lock:
            self._is_closed = True
            ended = [(ask[2], errors.ClientClosed()) for ask in self._asks]
            self._asks = []
            for topic in self._topics.values():
                ended += topic.take_all(errors.ClientClosed())
            self._topics.clear()
            if self._wake is not None:
                self._wake()
        settle_all(ended)

    def ask(self, call: Callable[[Sequence[K]], Sequence[Any]], key: K, future: F) -> F:
        """Asks `call` about one key, together with all who ask it meanwhile; an error in its reply is raised."""
        with self._lock:
            self._check_open()
            self._asks.append((call, key, future))
            self._notify()
        return future

    def read(self, job_id: str, *, after: str, future: F) -> F:
        """Reads the next events of a job after an id, as soon as there are any; none: they are over, or the stream is.

        Cancel the future to stop waiting.
        """
        with self._lock:
            self._check_open()
            topic = self._topics.get(job_id)
            if topic is not None:
                topic.used_s = time.monotonic()
                if _order(after) >= _order(topic.start) and (found := topic.find_after(after)):
                    settle_all([(future, found)])
                    return future
            if topic is None or topic.is_over or _order(after) < _order(topic.start):
                fresh = _Topic(job_id, after)
                if topic is not None:
                    fresh.reads = topic.reads
                    fresh.start = fresh.last = min(
                        (after, *(read.after for read in topic.reads)), key=_order
                    )
                self._topics[job_id] = topic = fresh
                self._new.append(fresh)
            topic.reads.append(_Read(after, future))
            self._notify()
        return future

    def _check_open(self) -> None:
        if self._is_closed:
            raise errors.ClientClosed

    # -- the thread

    def _notify(self) -> None:
        if self._wake is None:
            self._wake = int  # until its event loop runs, which looks for work by itself
            threading.Thread(target=self._run, name="videoqa-follower", daemon=True).start()
        self._wake()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - each waiter raises it
            with self._lock:
                ended: list[tuple[AnyFuture, Any]] = [(ask[2], error) for ask in self._asks]
                for topic in self._topics.values():
                    ended += topic.take_all(error)
                self._asks, self._topics, self._new, self._lanes = [], {}, [], []
                self._wake = None
            settle_all(ended)

    async def _serve(self) -> None:
        import httpx2

        has_work = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._lock:
            self._wake = partial(loop.call_soon_threadsafe, has_work.set)
        tasks: set[asyncio.Task[None]] = set()

        def start(task: asyncio.Task[None]) -> None:
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        async with httpx2.AsyncClient(
            headers={
                **self._connection.address.headers,
                "accept": "text/event-stream",
                "accept-encoding": "identity",
                "user-agent": "videoqa-python",
            },
            timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            follow_redirects=False,
        ) as http:
            while self._has_work(tasks):
                await asyncio.sleep(GATHER_S)
                has_work.clear()
                for call, asks in self._take_asks().items():
                    for first in range(0, len(asks), PER_QUESTION):
                        chunk = asks[first : first + PER_QUESTION]
                        start(asyncio.create_task(_answer(call, chunk)))
                for lane in self._plan_lanes():
                    lane.task = asyncio.create_task(self._follow(http, lane))
                    start(lane.task)
                try:
                    async with asyncio.timeout(IDLE_S):
                        await has_work.wait()
                except TimeoutError:
                    self._drop_idle()
            for task in list(tasks):
                task.cancel()

    def _has_work(self, tasks: set[asyncio.Task[None]]) -> bool:
        """Tells if the thread goes on; if not, the next who asks starts another."""
        with self._lock:
            if not self._is_closed and (self._asks or self._topics or tasks):
                return True
            self._wake = None
            return False

    def _take_asks(self) -> Mapping[Any, list[tuple[Any, AnyFuture]]]:
        with self._lock:
            asks, self._asks = self._asks, []
        by_call: defaultdict[Any, list[tuple[Any, AnyFuture]]] = defaultdict(list)
        for call, key, future in asks:
            by_call[call].append((key, future))
        return by_call

    def _plan_lanes(self) -> list[_Lane]:
        """Returns the lanes to start: for new jobs, and for those of the lanes that are ended to make room."""
        with self._lock:
            new = [topic for topic in self._new if self._topics.get(topic.job_id) is topic]
            self._new = []
            if not new:
                return []
            for lane in sorted(self._lanes, key=lambda lane: len(lane.topics)):
                live = [
                    topic
                    for topic in lane.topics.values()
                    if self._topics.get(topic.job_id) is topic and not topic.is_over
                ]
                most = max(LANES, -(-(len(self._topics)) // PER_LANE) + 1)
                if live and len(self._lanes) < most:
                    break
                new += live
                self._end(lane)
            lanes = [_Lane(new[first : first + PER_LANE]) for first in range(0, len(new), PER_LANE)]
            self._lanes += lanes
            return lanes

    def _end(self, lane: _Lane) -> None:
        self._lanes.remove(lane)
        if lane.task is not None:
            lane.task.cancel()

    def _drop_idle(self) -> None:
        """Forgets jobs that nobody reads, and lanes that have no others."""
        with self._lock:
            self._topics = {
                job_id: topic for job_id, topic in self._topics.items() if not topic.is_idle()
            }
            for lane in list(self._lanes):
                if not any(
                    self._topics.get(topic.job_id) is topic and not topic.is_over
                    for topic in lane.topics.values()
                ):
                    self._end(lane)

    # -- a lane

    async def _follow(self, http: httpx2.AsyncClient, lane: _Lane) -> None:
        """Passes on the events of a lane until it ends, whichever way."""
        ending: Any = []  # the gateway has ended the stream: it stops, or all jobs are over
        begun_s = time.monotonic()
        try:
            await self._pass_on(http, lane)
            if time.monotonic() - begun_s < SHORT_S and not all(
                topic.is_over for topic in lane.topics.values()
            ):
                await asyncio.sleep(SHORT_S)
        except errors.VideoQAError as error:
            ending = error
        finally:
            with self._lock:
                if lane in self._lanes:
                    self._lanes.remove(lane)
                    ended = [
                        one
                        for topic in lane.topics.values()
                        if not topic.is_over and self._topics.get(topic.job_id) is topic
                        for one in self._finish(topic, ending)
                    ]
                else:  # its jobs are in another lane
                    ended = []
            settle_all(ended)

    def _finish(self, topic: _Topic, value: Any) -> list[tuple[AnyFuture, Any]]:
        topic.is_over = True
        topic.used_s = time.monotonic()
        return topic.take_all(value)

    async def _pass_on(self, http: httpx2.AsyncClient, lane: _Lane) -> None:
        import httpx2

        address = self._connection.address
        after = [{"id": topic.job_id, "after": topic.last} for topic in lane.topics.values()]
        try:
            async with http.stream(
                "POST", f"{address.url}/v1/jobs:follow", json={"jobs": after}
            ) as answer:
                if answer.is_redirect:
                    raise refuse_redirect(address, answer.headers.get("location", ""))
                kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
                if answer.status_code != 200 or kind != "text/event-stream":
                    body = await _read_start(answer)
                    raise make_error(
                        read_problem(body),
                        status=answer.status_code,
                        where=address.shown,
                        body=body,
                    )
                parser = ServerEventParser()
                async for part in answer.aiter_bytes():
                    found = parser.feed(part)
                    if found:
                        self._take_events(lane, found, address.shown)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise explain_transport(address, error) from error

    def _take_events(self, lane: _Lane, found: Sequence[tuple[str, Any]], where: str) -> None:
        """Gives events to the reads that wait for them."""
        ready: list[tuple[AnyFuture, Any]] = []
        with self._lock:
            touched: dict[str, _Topic] = {}
            for name, body in found:
                topic = lane.topics.get(str(body.get("job_id")))
                if topic is None or self._topics.get(topic.job_id) is not topic:
                    continue
                if name == "event":
                    event = _parse_event(body.get("event"))
                    if event is not None:
                        topic.add(event)
                        touched[topic.job_id] = topic
                elif name in ("end", "error"):
                    ready += topic.take_ready()
                    value: Any = []
                    if name == "error":
                        value = make_error(
                            check_problem(body.get("error")), status=500, where=where
                        )
                    ready += self._finish(topic, value)
            for topic in touched.values():
                ready += topic.take_ready()
        settle_all(ready)


def _parse_event(found: Any) -> Event | None:
    """Returns an event; None for one of a kind that this release does not know."""
    try:
        return Event.model_validate(found, extra="ignore")
    except ValidationError:
        return None


async def _answer(
    call: Callable[[Sequence[Any]], Sequence[Any]], asks: Sequence[tuple[Any, AnyFuture]]
) -> None:
    """Asks about some keys on a thread, since the request may take its time."""
    replies: Sequence[Any]
    try:
        replies = await asyncio.to_thread(call, [key for key, _ in asks])
    except asyncio.CancelledError:
        # The client is closed; the thread ends with its request, and nobody hears of it.
        replies = [errors.ClientClosed()] * len(asks)
    except Exception as error:  # noqa: BLE001 - each waiter raises it
        replies = [error] * len(asks)
    settle_all([(future, reply) for (_, future), reply in zip(asks, replies, strict=True)])


async def _read_start(answer: httpx2.Response) -> bytes:
    """Reads as much of a refusal as a message shows."""
    found = b""
    async for part in answer.aiter_bytes():
        found += part
        if len(found) > 100_000:
            break
    return found
