"""BulkActions: changes of all jobs that a filter selects, in batches, by whichever process holds an action's lease.

An action is a hash in Redis. Each batch is one script, which looks at each job again, changes it, and writes the
progress; so a process that is killed loses and repeats nothing, and any other one goes on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError

from videoqa.contract import (
    FINAL_STATES,
    BulkAction,
    BulkKind,
    BulkRefusal,
    JobFilter,
    JobState,
    to_datetime,
)
from videoqa.errors import BulkActionNotFound, InvalidRequest, RecordUnreadable
from videoqa.jobs.connection import execute_each, translate_redis_errors
from videoqa.jobs.key_quota import KeyQuota
from videoqa.jobs.ledger import Ledger
from videoqa.jobs.list_cursor import ListCursor
from videoqa.jobs.selection import JobSelection

__all__ = ["Batch", "BulkActions", "new_bulk_id", "select_for"]

LEASE_S = 15.0
"""Time after a batch after which any process may go on with the action."""
KEPT_S = 7 * 86_400
"""Time for which an ended action can be looked at."""
MOST_KEPT = 1000
"""Actions that are listed; older ones leave the list."""
BATCH = 100
"""Jobs that one script changes, which takes Redis a few milliseconds."""
MOST_SEARCHED = 200
"""Jobs whose requests are read in one round trip, where a text is looked for."""

_STATES: dict[BulkKind, tuple[JobState, ...]] = {
    "cancel": ("queued", "running"),
    "retry": ("failed",),
    "purge": tuple(sorted(FINAL_STATES)),
}
_ALLOWED: dict[BulkKind, tuple[JobState, ...]] = _STATES | {
    "retry": ("failed", "canceled", "expired")
}


def new_bulk_id() -> str:
    """Makes an id of an action that cannot be guessed."""
    return f"bulk_{secrets.token_hex(12)}"


def select_for(action: BulkKind, which: JobFilter, *, cut_off: datetime) -> JobSelection:
    """Returns the jobs that an action changes, the oldest first; raises InvalidRequest for a filter that is none.

    Arguments:
        cut_off: jobs that have been in their state since then or longer.
    """
    if action not in _STATES:
        raise InvalidRequest(
            f"got action {action!r:.80}, expected cancel, retry or purge", param="action"
        )
    if not which.model_dump(exclude_none=True, exclude={"until", "ended_until"}):
        raise InvalidRequest(
            "filter: got none, expected a state, tag, code or another one: an action on all jobs there are is refused",
            param="filter",
        )
    allowed = _ALLOWED[action]
    state = "failed" if which.is_dead else which.state
    if state is not None and state not in allowed:
        raise InvalidRequest(
            f"got the state {state} for {action}, expected one of {', '.join(allowed)}, or none",
            param="state",
        )
    return JobSelection(which, _STATES[action], cut_off_s=cut_off.timestamp(), is_ascending=True)


@dataclass(frozen=True)
class Batch:
    """The next jobs of an action."""

    job_ids: Sequence[str]
    looked_at: int
    last: ListCursor | None
    """The last position that was looked at; None: no more follow."""


class BulkActions:
    """The bulk actions of one prefix, or of one tenant in it. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # -- callers

    def create(self, action: BulkAction, *, key_id: str = "") -> BulkAction:
        """Records an action, for a process that moves it on; returns the one that is there if its id is.

        Arguments:
            key_id: the API key that pays for retried jobs, and without which the action stops.
        """
        info = action.model_dump_json(exclude_defaults=True)
        self._ledger._run("bulk", "create", action.id, f"{key_id} {info}", MOST_KEPT)
        return self.find(action.id)

    def find(self, bulk_id: str) -> BulkAction:
        """Returns an action; raises BulkActionNotFound."""
        return self.find_with_key(bulk_id)[0]

    def find_with_key(self, bulk_id: str) -> tuple[BulkAction, str]:
        """Returns an action, and the id of its API key or an empty text."""
        found = self._read([bulk_id])[0] if bulk_id.isascii() else None
        if found is None:
            raise BulkActionNotFound(
                f"no bulk action {bulk_id!r:.100} is known here, or it ended more than 7 days ago; check the id"
            )
        return found

    def list_newest(self, *, limit: int = 50) -> list[BulkAction]:
        """Returns the newest actions, the last one first."""
        key = f"{self._ledger.keys.prefix}:bulks"
        with translate_redis_errors(self._ledger._url):
            most = limit - 1 if self._ledger.tenant is None else -1
            ids = cast("list[str]", self._ledger._redis.zrevrange(key, 0, most))
        return [row[0] for row in self._read(ids) if row is not None][:limit]

    def stop(self, bulk_id: str) -> BulkAction:
        """Stops an action, unless it has ended; what it has changed stays."""
        self.find(bulk_id)
        self.end(bulk_id, "", "stopped", "stopped on request")
        return self.find(bulk_id)

    def _read(self, ids: Sequence[str]) -> list[tuple[BulkAction, str] | None]:
        ledger = self._ledger
        with translate_redis_errors(ledger._url):
            pipe = ledger._redis.pipeline(transaction=False)
            for bulk_id in ids:
                pipe.hgetall(f"{ledger.keys.prefix}:bulk:{bulk_id}")
            found = [_parse(reply) for reply in execute_each(pipe)]
        return [
            row if row is not None and ledger.tenant in (None, row[0].tenant) else None
            for row in found
        ]

    # -- the holder

    def take(self, holder: str, bulk_id: str = "") -> str | None:
        """Takes an action, or any that is due, for the time of its lease; None: there is none, or it is taken."""
        found = str(self._ledger._run("bulk", "take", bulk_id, holder, LEASE_S)[0])
        return None if found in ("busy", "none") else found

    def release(self, bulk_id: str, holder: str) -> None:
        """Gives an action back, so that any process may take it at once."""
        self._ledger._run("bulk", "release", bulk_id, holder)

    def end(self, bulk_id: str, holder: str, status: str, message: str) -> None:
        """Ends an action before its last batch.

        Arguments:
            holder: only if this process still holds it; empty: whoever does.
        """
        self._ledger._run("bulk", "end", bulk_id, holder, status, message, KEPT_S)

    def look(self, action: BulkAction) -> Batch:
        """Returns the jobs of the next batch."""
        ledger = self._ledger.for_tenant(action.tenant)
        which = action.filter
        at = self._read_place(action.id)
        most = BATCH if which.text is None else MOST_SEARCHED
        listed = ledger.list_index(
            select_for(action.action, which, cut_off=action.cut_off),
            after=at,
            limit=BATCH,
            most=1000 if which.text is None else most,
        )
        ids = [one.job_id for one in listed.found]
        if which.text is not None and ids:
            having = ledger.filter_by_text(ids, which.text)
            ids = [job_id for job_id in ids if job_id in having]
        return Batch(ids, listed.looked_at, listed.last)

    def _read_place(self, bulk_id: str) -> ListCursor | None:
        ledger = self._ledger
        with translate_redis_errors(ledger._url):
            key = f"{ledger.keys.prefix}:bulk:{bulk_id}"
            at_s, job_id = cast("Any", ledger._redis.hmget(key, "at", "at_id"))
        try:
            return ListCursor.parse(f"{at_s}-{job_id}") if at_s else None
        except InvalidRequest as error:
            raise RecordUnreadable(
                f"record {key} cannot be read: {error.message}; delete the key"
            ) from error

    def change(
        self,
        action: BulkAction,
        batch: Batch,
        *,
        holder: str,
        ring: Callable[[Sequence[str]], None],
        key: KeyQuota | None = None,
    ) -> BulkAction:
        """Changes the jobs of a batch that are still selected, rings for those that wait, and returns the progress."""
        selection = select_for(action.action, action.filter, cut_off=action.cut_off)
        last = (f"{batch.last.at_s:.6f}", batch.last.job_id) if batch.last else ("", "")
        reply = self._ledger._run(
            "change",
            action.id,
            holder,
            LEASE_S,
            action.action,
            selection.to_json(action.tenant),
            action.tenant or "",
            *(key.lua_args() if key else ("", "")),
            batch.looked_at,
            *last,
            KEPT_S,
            *batch.job_ids,
        )
        queues = reply[{"ok": 2, "limit": 3}.get(reply[0], 1) :]
        if queues:
            ring(queues)
        if key is not None and reply[0] == "ok" and reply[1]:
            key.note(reply[1])
        return self.find(action.id)


def _parse(reply: Any) -> tuple[BulkAction, str] | None:
    """Returns an action and its key's id; None for a hash that somebody broke."""
    if not isinstance(reply, dict):
        return None
    try:
        key_id, _, info = reply["info"].partition(" ")
        asked = BulkAction.model_validate_json(info, extra="ignore")
        rows = [line.partition(" ") for line in reply.get("refusals", "").splitlines()]
        fields = {
            "status": reply["status"],
            "changed": int(reply.get("changed", 0)),
            "looked_at": int(reply.get("looked_at", 0)),
            "refused": int(reply.get("refused", 0)),
            "refusals": tuple(BulkRefusal(job_id=row[0], reason=row[2]) for row in rows),
            "message": reply.get("message") or None,
            "updated_at": to_datetime(float(reply["updated_at"])),
        }
        return BulkAction.model_validate(dict(asked) | fields), key_id
    except (KeyError, TypeError, ValueError, OverflowError, OSError, ValidationError):
        return None
