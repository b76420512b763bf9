"""Events of a job as Redis holds them: parsing them, and reading them with asyncio.

`reader.py` has the blocking twin of `AsyncEventReader`. A job's first event is made from its record:
its stream does not hold it, since a stream of a single entry takes 530 bytes (measured with Valkey
9.1), and a backlog has no more than that of each job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from videoqa.contract import Event, to_datetime
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


class AsyncEventReader:
    """Reads events on an event loop; a blocking read occupies no thread."""

    def __init__(self, client: redis.asyncio.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._keys = Keys(prefix)
        self._unreadable = UnreadableLog()

    async def read_events(
        self, job_id: str, *, after: str = "0", block_s: float = 0.0
    ) -> list[Event]:
        """Returns the events after the id `after`, waiting up to `block_s` for the first."""
        key = self._keys.events(job_id)
        with translate_redis_errors(self._url):
            first = make_first(await self._read_created_at(job_id)) if includes_first(after) else []
            while True:
                block_ms = limit_block_ms(block_s, first)
                reply = await self._redis.xread({key: after}, block=block_ms)
                found = parse_events(reply)
                for event_id in found.unreadable:
                    self._unreadable.warn(f"{key} {event_id}", "it is no event")
                if found.events or first or found.last_id is None:
                    return first + found.events
                after = found.last_id

    async def _read_created_at(self, job_id: str) -> str | None:
        return cast("str | None", await self._redis.hget(self._keys.job(job_id), "created_at"))
