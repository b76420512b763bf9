"""Reading from a replica, so that dashboards and gateways do not load the primary.

A replica is behind by some milliseconds, or by more. So a record that it does not have is looked up at the primary
before anybody hears that there is none; so is a result that is not there yet, and a job that this client has just
changed. Where the replica does not answer the primary does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Self, TypeVar, cast

import redis

from videoqa import errors
from videoqa.contract import (
    DeadCount,
    DeadGroups,
    Job,
    JobCount,
    JobState,
    JobTimeline,
    QueueInfo,
    Result,
    WorkerInfo,
)
from videoqa.jobs.fleet_stats import RingsRead
from videoqa.jobs.list_cursor import ListCursor
from videoqa.jobs.reader import GROUPED, LedgerReader
from videoqa.jobs.selection import JobSelection, ListedJobs
from videoqa.telemetry import log_events

__all__ = ["ReplicaReader"]

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

REST_S = 5.0
"""Time for which a replica that did not answer is not asked again."""
OWN_S = 10.0
"""Time for which a job that this client has changed is read at the primary."""
MOST_OWN = 10_000


class _Shared:
    """State that the readers of all tenants share."""

    def __init__(self) -> None:
        self.rests_until_s = float("-inf")
        self.is_away = False
        self.own: dict[str, float] = {}
        """Job id -> end of the time in which it is read at the primary; the oldest in front."""


def _or_at_primary(method: F) -> F:
    """Makes a method that reads at the primary while the replica does not answer."""

    @wraps(method)
    def read(self: ReplicaReader, *args: Any, **options: Any) -> Any:
        if time.monotonic() >= self._shared.rests_until_s:
            try:
                found = method(self, *args, **options)
            except errors.RedisUnavailable as error:
                self._leave_for_a_while(error)
            else:
                self._shared.is_away = False
                return found
        return getattr(self._primary, method.__name__)(*args, **options)

    return cast("F", read)


class ReplicaReader(LedgerReader):
    """Reads job records at a replica, and at the primary what must not be old. Thread-safe."""

    def __init__(
        self, client: redis.Redis, *, url: str, prefix: str, primary: LedgerReader
    ) -> None:
        super().__init__(client, url=url, prefix=prefix)
        self.tenant = primary.tenant
        self._primary = primary
        self._shared = _Shared()

    def for_tenant(self, tenant: str | None) -> Self:
        found = super().for_tenant(tenant)
        found._primary = self._primary.for_tenant(tenant)
        return found

    def note_change(self, job_id: str) -> None:
        """Has the job read at the primary for a while, since this client has changed it, or seen a change."""
        own = self._shared.own
        own.pop(job_id, None)
        own[job_id] = time.monotonic() + OWN_S
        if len(own) > MOST_OWN:
            for old in list(own)[: MOST_OWN // 10]:
                own.pop(old, None)

    def _is_own(self, job_id: str) -> bool:
        return self._shared.own.get(job_id, 0.0) > time.monotonic()

    def _leave_for_a_while(self, error: errors.RedisUnavailable) -> None:
        if not self._shared.is_away:
            log_events.REPLICA_AWAY.log(log, error=error)
        self._shared.is_away = True
        self._shared.rests_until_s = time.monotonic() + REST_S

    def _read_records(
        self, job_ids: Sequence[str], also: Sequence[str] = ()
    ) -> list[dict[str, str | None] | None]:
        records = super()._read_records(job_ids, also)
        return self._look_again(job_ids, records, partial(self._primary._read_records, also=also))

    def _look_again(
        self,
        job_ids: Sequence[str],
        found: Sequence[T | None],
        read: Callable[[Sequence[str]], Sequence[T | None]],
    ) -> list[T | None]:
        """Replaces what is missing, or may be old, by what the primary has."""
        doubtful = [
            job_id
            for job_id, one in zip(job_ids, found, strict=True)
            if one is None or self._is_own(job_id)
        ]
        newer = dict(zip(doubtful, read(doubtful), strict=True)) if doubtful else {}
        return [newer.get(job_id, one) for job_id, one in zip(job_ids, found, strict=True)]

    def _explain_missing(self, job_id: str) -> errors.LookupFailed:
        return self._primary._explain_missing(job_id)

    @_or_at_primary
    def get(self, job_id: str, *, include_request: bool = False) -> Job:
        if self._is_own(job_id):
            return self._primary.get(job_id, include_request=include_request)
        return super().get(job_id, include_request=include_request)

    @_or_at_primary
    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> list[Job | errors.RecordUnreadable | None]:
        return super().get_many(job_ids, include_request=include_request)

    @_or_at_primary
    def get_states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        found = super().get_states(job_ids)
        newer = self._look_again(job_ids, found, self._primary.get_states)
        return cast("list[JobState | None]", newer)

    @_or_at_primary
    def result(self, job_id: str) -> tuple[Job, Result | None]:
        job, result = super().result(job_id)
        return (job, result) if result is not None else self._primary.result(job_id)

    @_or_at_primary
    def list_index(
        self, which: JobSelection, *, after: ListCursor | None, limit: int, most: int
    ) -> ListedJobs:
        return super().list_index(which, after=after, limit=limit, most=most)

    @_or_at_primary
    def filter_by_text(self, job_ids: Sequence[str], text: str) -> set[str]:
        return super().filter_by_text(job_ids, text)

    @_or_at_primary
    def count_index(self, which: JobSelection, *, most: int) -> JobCount:
        return super().count_index(which, most=most)

    @_or_at_primary
    def count_dead(self) -> list[DeadCount]:
        return super().count_dead()

    @_or_at_primary
    def group_dead(self, code: str, *, most: int = GROUPED) -> DeadGroups:
        return super().group_dead(code, most=most)

    @_or_at_primary
    def read_queues(self, *, idle_s: float) -> tuple[list[QueueInfo], bool]:
        return super().read_queues(idle_s=idle_s)

    @_or_at_primary
    def workers(self) -> list[WorkerInfo]:
        return super().workers()

    @_or_at_primary
    def read_rings(self, *, all_of_them: bool) -> RingsRead:
        return super().read_rings(all_of_them=all_of_them)

    @_or_at_primary
    def timeline(self, job_id: str) -> JobTimeline:
        if self._is_own(job_id):
            return self._primary.timeline(job_id)
        return super().timeline(job_id)

    @_or_at_primary
    def count_failures(self, *, within_s: float) -> dict[str, int]:
        return super().count_failures(within_s=within_s)
