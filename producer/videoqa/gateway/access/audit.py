"""Audit log: changes that operators and administrators asked for, as a bounded stream in Redis.

An entry is written before the change is carried out. If it cannot be written, the change is refused, so that there is
none that the log lacks; one that failed afterwards is in it as well. Submits are not in it, since jobs have records of
their own, and would push out the rest.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import redis
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from videoqa.errors import InvalidRequest
from videoqa.jobs import translate_redis_errors

__all__ = ["KEPT", "AuditEntry", "AuditLog", "AuditPage", "make_fields"]

_CURSOR = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_CHUNK = 2000
"""Entries that are read in one round trip where a text is looked for."""
KEPT = 10_000
"""Entries that are kept, about; older ones leave."""


class AuditEntry(BaseModel):
    """One change: its author, its name, and the thing that it changed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: AwareDatetime
    who: str
    """Id of the key, or `shell:USER` of the command line."""
    what: str
    """Method and path of the route, or the command."""
    on: str = ""
    """Id of the job or key that it was about; empty: none."""
    request_id: str = ""
    detail: str = ""


@dataclass(frozen=True)
class AuditPage:
    """Some entries, newest first, and the cursor of the next page."""

    entries: list[AuditEntry]
    next_cursor: str | None


def make_fields(
    who: str, what: str, *, on: str = "", request_id: str = "", detail: str = ""
) -> dict[str, str]:
    """Makes the fields of an entry of now; what callers chose is cut off at 200 characters."""
    entry = AuditEntry(
        at=datetime.now(UTC),
        who=who,
        what=what[:200],
        on=on[:200],
        request_id=request_id,
        detail=detail[:200],
    )
    return cast("dict[str, str]", entry.model_dump(mode="json"))


class AuditLog:
    """The log of one prefix. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._stream = f"{prefix}:audit"

    def write(self, fields: dict[str, str], *, pipe: Any = None) -> None:
        """Adds an entry, or queues it in a pipeline, whose other calls it is to be atomic with."""
        with translate_redis_errors(self._url):
            (self._redis if pipe is None else pipe).xadd(
                self._stream, cast(Any, fields), maxlen=KEPT, approximate=True
            )

    def read(self, limit: int = 100) -> list[AuditEntry]:
        """Returns the last entries, newest first."""
        return self.find(limit=limit).entries

    def find(
        self, *, text: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> AuditPage:
        """Returns a page of the entries, newest first.

        Arguments:
            text: only entries with this text in one of their fields, in any case; all that are kept are looked at.

        Raises:
            InvalidRequest: the cursor is none of a page's.
        """
        match = _CURSOR.fullmatch(cursor) if cursor is not None else None
        parts = [int(one) for one in match.groups()] if match else []
        # Nothing is before the first id that there may be, and none is larger than two numbers of 64 bits.
        if cursor is not None and (not any(parts) or max(parts) >= 1 << 64):
            raise InvalidRequest(
                f"got cursor={cursor!r:.120}, expected the `next_cursor` of a page", param="cursor"
            )
        found: list[tuple[str, AuditEntry]] = []
        last = f"({cursor}" if cursor else "+"
        count = limit + 1 if text is None else _CHUNK
        while len(found) <= limit:
            chunk = self._read_chunk(last, count)
            for entry_id, fields in chunk:
                with suppress(ValidationError):  # another program's
                    entry = AuditEntry.model_validate(fields)
                    if text is None or _has_text(entry, text):
                        found.append((entry_id, entry))
            if len(chunk) < count:
                break
            last = f"({chunk[-1][0]}"
        more = found[limit - 1][0] if len(found) > limit else None
        return AuditPage([entry for _, entry in found[:limit]], more)

    def _read_chunk(self, last: str, count: int) -> list[tuple[str, dict[str, str]]]:
        with translate_redis_errors(self._url):
            return cast(
                "list[tuple[str, dict[str, str]]]",
                self._redis.xrevrange(self._stream, max=last, count=count),
            )


def _has_text(entry: AuditEntry, text: str) -> bool:
    fields = (entry.who, entry.what, entry.on, entry.detail, entry.request_id)
    return any(text.casefold() in field.casefold() for field in fields)
