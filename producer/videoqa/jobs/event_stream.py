"""Events of a job as Redis holds them, and parsing them.

A job's first event is made from its record:
its stream does not hold it, since a stream of a single entry takes 530 bytes (measured with Valkey
9.1), and a backlog has no more than that of each job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from videoqa.contract import Event, to_datetime

__all__ = [
    "FIRST_ID",
    "EventsRead",
    "find_before",
    "includes_first",
    "make_first",
    "parse_first",
    "parse_streams",
]


FIRST_ID = "0-1"
"""Id of the first event: before all that a stream holds, whatever its server's clock says."""


def includes_first(after: str) -> bool:
    """Returns True if the events after this id begin with the job's first one."""
    return after in ("0", "0-0")


def find_before(event_id: str) -> str | None:
    """Returns the greatest id below an event's, behind which a read begins with that event; None: it is no id."""
    match = re.fullmatch(r"([0-9]{1,19})-([0-9]{1,19})", event_id)
    if match is None:
        return None
    at, number = int(match[1]), int(match[2])
    return f"{at}-{number - 1}" if number else f"{max(at, 1) - 1}-{2**64 - 1}"


def make_first(created_at: datetime) -> Event:
    """Makes the job's first event."""
    return Event(id=FIRST_ID, type="state", state="queued", at=created_at)


def parse_first(created_at: str | None) -> list[Event]:
    """Makes the job's first event from its record's `created_at`; none if the record is gone."""
    try:
        return [] if created_at is None else [make_first(to_datetime(float(created_at)))]
    except (ValueError, OverflowError, OSError):
        return []


@dataclass(frozen=True)
class EventsRead:
    """Events of one read, without the entries that are none."""

    events: list[Event] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Ids of the entries that are no events: a newer release or another program wrote them."""
    last_id: str | None = None
    """Id of the last entry, of either kind; None: there was none."""


def parse_streams(reply: Any) -> dict[str, EventsRead]:
    """Parses XREAD's reply, each entry for itself; a stream without news is not in it."""
    streams = reply.items() if isinstance(reply, dict) else (reply or ())
    return {key: _parse_entries(entries) for key, entries in streams}


def _parse_entries(entries: Any) -> EventsRead:
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
    return Event(
        **(data | {"id": event_id, "at": to_datetime(int(event_id.partition("-")[0]) / 1000)})
    )
