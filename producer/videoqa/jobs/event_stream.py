"""Events of a job as Redis holds them: parsing them, and reading them with asyncio.

`reader.py` has the blocking twin of `AsyncEventReader`. A job's first event is made from its record:
its stream does not hold it, since a stream of a single entry takes 530 bytes (measured with Valkey
9.1), and a backlog has no more than that of each job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, cast

from videoqa.contract import Event, to_datetime
from videoqa.errors import ClientClosed
from videoqa.forks import reopen_in_children
from videoqa.jobs.connection import translate_redis_errors
from videoqa.jobs.keys import Keys
from videoqa.jobs.unreadable import UnreadableLog

if TYPE_CHECKING:
    import redis.asyncio

__all__ = ["AsyncEventReader", "includes_first", "limit_block_ms", "make_first", "parse_events"]


def includes_first(after: str) -> bool:
    """Returns True if the events after this id begin with the job's first one."""
    return after in ("0", "0-0")


def make_first(created_at: str | None) -> list[Event]:
    """Makes the job's first event from its record's `created_at`; none if the record is gone."""
    if created_at is None:
        return []
    try:
        at = to_datetime(float(created_at))
    except (ValueError, OverflowError, OSError):
        return []
    # Its id comes before all that the stream will hold.
    first_id = f"{int(float(created_at) * 1000) - 1}-0"
    return [Event(id=first_id, type="state", state="queued", at=at)]


def limit_block_ms(block_s: float, first: list[Event]) -> int | None:
    """Returns the time limit of XREAD; None: it does not block, as the first event is there already."""
    return int(block_s * 1000) if block_s and not first else None


@dataclass(frozen=True)
class EventsRead:
    """Events of one read, without the entries that are none."""

    events: list[Event] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Ids of the entries that are no events: a newer release or another program wrote them."""
    last_id: str | None = None
    """Id of the last entry, of either kind; None: there was none."""


def parse_events(reply: Any) -> EventsRead:
    """Parses XREAD's reply about one stream, each entry for itself."""
    if not reply:
        return EventsRead()
    streams = reply.values() if isinstance(reply, dict) else [entry[1] for entry in reply]
    entries = next(iter(streams))
    if entries and isinstance(entries[0], list):  # RESP3 nests once more
        entries = entries[0]
    found = EventsRead(last_id=entries[-1][0] if entries else None)
    for event_id, fields in entries:
        try:
            found.events.append(_parse_event(event_id, fields))
        except (ValueError, KeyError, OverflowError, OSError):
            found.unreadable.append(event_id)
    return found


def _parse_event(event_id: str, fields: dict[str, str]) -> Event:
    data: dict[str, Any] = {
        name: value for name, value in fields.items() if value != "" and name in Event.model_fields
    }
    return Event(**(data | {"id": event_id, "at": to_datetime(float(data["at"]))}))


_inherited: list[object] = []
"""Connections of a forked child's parent. If they were collected, they would leave the parent's event loop,
whose epoll is the child's as well."""


def _refuse() -> NoReturn:
    raise ClientClosed


class AsyncEventReader:
    """Reads events on any event loop; a blocking read occupies no thread."""

    def __init__(
        self, connect: Callable[[], redis.asyncio.Redis], *, url: str, prefix: str
    ) -> None:
        self._connect = connect
        self._url = url
        self._keys = Keys(prefix)
        self._unreadable = UnreadableLog()
        self._clients: dict[asyncio.AbstractEventLoop, redis.asyncio.Redis] = {}
        """A connection belongs to the loop on which it was made."""
        reopen_in_children(self)

    def _connect_once(self) -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for other in [one for one in list(self._clients) if one.is_closed()]:
                self._clients.pop(other, None)
            self._clients[loop] = self._connect()
        return self._clients[loop]

    def _reopen(self) -> None:
        """Leaves the connections to the parent, in a forked child."""
        _inherited.append(self._clients)
        self._clients = {}

    async def close(self) -> None:
        """Closes the connections of all event loops that run; reads raise ClientClosed from now on."""
        self._connect = _refuse
        clients, self._clients = self._clients, {}
        here = asyncio.get_running_loop()
        for loop, client in clients.items():
            if loop is here:
                await client.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)

    async def read_events(
        self, job_id: str, *, after: str = "0", block_s: float = 0.0
    ) -> list[Event]:
        """Returns the events after the id `after`, waiting up to `block_s` for the first."""
        client = self._connect_once()
        key = self._keys.events(job_id)
        with translate_redis_errors(self._url):
            created_at = (
                cast("str | None", await client.hget(self._keys.job(job_id), "created_at"))
                if includes_first(after)
                else None
            )
            first = make_first(created_at)
            while True:
                block_ms = limit_block_ms(block_s, first)
                reply = await client.xread({key: after}, block=block_ms)
                found = parse_events(reply)
                for event_id in found.unreadable:
                    self._unreadable.warn(f"{key} {event_id}", "it is no event")
                if found.events or first or found.last_id is None:
                    return first + found.events
                after = found.last_id
