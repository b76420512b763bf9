"""Backend: the calls that reach a client's jobs, wherever those are.

`Client` and `AsyncClient` check what an app gives them, and follow jobs; a backend makes the round trips. A backend of
Redis and one of a gateway have the same calls, so that nothing above them knows which one it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol, Self, TypeVar

from videoqa.contract import (
    ArchiveRun,
    BulkAction,
    BulkKind,
    BulkPreview,
    DeadCount,
    DeadGroups,
    Job,
    JobCount,
    JobFilter,
    JobPage,
    JobRequest,
    JobState,
    JobTimeline,
    Priority,
    QueueInfo,
    Result,
    RunPage,
    RunReport,
    RunState,
    Stats,
    StatsSpan,
    UsageBy,
    UsageRow,
    WorkerInfo,
)
from videoqa.errors import RequestError, VideoQAError
from videoqa.jobs import AnyFuture, EventCursor

__all__ = ["Backend", "QueueId", "Submitted", "naming_request"]

F = TypeVar("F", bound=AnyFuture)


@dataclass(frozen=True)
class Submitted:
    """Outcome of one request of `submit_many`: its job, or the error that refused it."""

    job: Job | None = None
    error: VideoQAError | None = None

    @property
    def job_id(self) -> str | None:
        return self.job.id if self.job else None


@contextmanager
def naming_request(number: int) -> Iterator[None]:
    """Adds the number of one of many requests to the `param` of an error about it."""
    try:
        yield
    except RequestError as error:
        where = f"requests.{number}"
        error.param = f"{where}.{error.param}" if error.param else where
        raise


@dataclass(frozen=True)
class QueueId:
    """The queue of one model and priority; model None: of jobs that name no model."""

    model: str | None
    priority: Priority


class Backend(Protocol):
    """The jobs of one client. Thread-safe; connects at its first call, and anew in a forked child."""

    @property
    def sets_output(self) -> bool:
        """True if a request may say where its result is stored."""
        ...

    def submit(self, request: JobRequest) -> Job: ...

    def submit_many(self, requests: Sequence[JobRequest], *, first: int) -> list[Submitted]:
        """Records some hundred jobs in one round trip; returns what became of each.

        Arguments:
            first: number of the first request, for the `param` of an error that refuses all: `requests.N`.
        """
        ...

    def get(self, job_id: str, *, include_request: bool = False) -> Job: ...

    def get_now(self, job_id: str) -> Job:
        """Returns the job as it is after all changes so far, while `get` may be some milliseconds behind."""
        ...

    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> list[Job | None]: ...

    def get_states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """Returns the states of some hundred jobs."""
        ...

    def list_page(
        self, which: JobFilter, *, cursor: str | None, limit: int, include_request: bool
    ) -> JobPage: ...

    def count(self, which: JobFilter) -> JobCount: ...

    def count_dead(self, tenant: str | None) -> list[DeadCount]:
        """Returns the numbers of dead letters by code, of a tenant or of all."""
        ...

    def group_dead(self, code: str, tenant: str | None) -> DeadGroups:
        """Returns the newest dead letters with a code by groups of equal messages."""
        ...

    def list_dead(self) -> Iterator[str]:
        """Yields the ids of failed jobs, those submitted first in front; their records may be gone."""
        ...

    def result(self, job_id: str) -> Result: ...

    def sheet(self, job_id: str, *, thumbnail: bool) -> bytes:
        """Returns the JPEG with thumbnails of the frames that the model saw, or a small one of one frame."""
        ...

    def cancel(self, job_id: str) -> Job: ...

    def retry(self, job_id: str) -> Job: ...

    def purge(self, job_id: str) -> None: ...

    def preview_bulk(
        self, action: BulkKind, which: JobFilter, cut_off: datetime | None
    ) -> BulkPreview: ...

    def start_bulk(
        self,
        action: BulkKind,
        which: JobFilter,
        *,
        expected: int | None,
        cut_off: datetime | None,
        key: str | None,
    ) -> BulkAction: ...

    def get_bulk(self, bulk_id: str) -> BulkAction: ...

    def list_bulk(self, limit: int) -> list[BulkAction]: ...

    def stop_bulk(self, bulk_id: str) -> BulkAction: ...

    def advance_bulk(self, bulk_id: str, holder: str) -> BulkAction:
        """Returns an action as it is; changes its next jobs before, where no other process does."""
        ...

    def queues(self) -> list[QueueInfo]: ...

    def pause(self, queues: Sequence[QueueId]) -> None: ...

    def resume(self, queues: Sequence[QueueId]) -> None: ...

    def usage(
        self, first_day: date, last_day: date, *, by: UsageBy, tenant: str | None
    ) -> list[UsageRow]:
        """Returns the counted use of these UTC days, both included, of a tenant or of all."""
        ...

    def workers(self) -> list[WorkerInfo]: ...

    def stats(self, span: StatsSpan, *, model: str | None) -> Stats:
        """Returns the figures of the fleet, of one model or of all."""
        ...

    def timeline(self, job_id: str) -> JobTimeline: ...

    def announce_run(self, report: RunReport, *, begins: bool) -> None: ...

    def runs(
        self, *, state: RunState | None, text: str | None, cursor: str | None, limit: int
    ) -> RunPage: ...

    def get_run(self, run_id: str) -> ArchiveRun: ...

    def ping(self) -> str:
        """Returns the server's name and version."""
        ...

    def ask_job(self, job_id: str, future: F) -> F:
        """Asks for a job, together with all who ask meanwhile; None: there is none, and `get_now` says why.

        Arguments:
            future: gets the answer; one of a thread, or of an event loop.
        """
        ...

    def ask_state(self, job_id: str, future: F) -> F:
        """Asks for a job's state in the same way."""
        ...

    def ask_events(self, cursor: EventCursor, future: F) -> F:
        """Asks for the events that the cursor reads next: those of now, or the next ones, as soon as there are any."""
        ...

    def for_tenant(self, tenant: str | None) -> Self:
        """Returns a backend of one tenant's jobs on the connections of this one."""
        ...

    def close(self) -> None:
        """Closes the connections; calls raise ClientClosed from now on."""
        ...
