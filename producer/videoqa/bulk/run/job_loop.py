"""JobLoop: rows become jobs, a bounded number at a time, and final jobs become outcomes.

    take rows -> submit them -> poll the open jobs -> collect their results

While Redis is away or the queue is full the loop waits, and reports that. `run.py` drives it for the rows of a
manifest, and the gateway for the lines of a batch.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, Protocol, TypeVar

from videoqa import errors
from videoqa.bulk.run.fleet_limit import FleetLimit
from videoqa.contract import FINAL_STATES, Job, JobState

__all__ = ["InFlight", "JobLoop", "JobReader"]

_AWAY = (errors.Unavailable, errors.RateLimited)
"""Errors that end by themselves: a server that does not answer, a gateway that takes no more now."""
PAUSE_S = 1.0
"""Pause after Redis did not answer or the queue was full."""
BATCH = 500
"""Rows that are submitted in one round trip."""
COLLECTED = 16
"""Results that one thread reads in a row."""


class JobReader(Protocol):
    """The calls of a client that the loop makes itself."""

    def get_states(self, job_ids: Sequence[str]) -> list[JobState | None]: ...

    def get_many(self, job_ids: Sequence[str]) -> list[Job | None]: ...


class InFlight(Protocol):
    """A row on its way to its outcome."""

    number: int
    """Number of its job: another one is needed where the record of the last lies about the result."""
    job_id: str | None
    state: JobState | None
    """The job's final state; None if no end was seen, or its record is gone."""
    job: Job | None
    """The final job, if it has no result."""


F = TypeVar("F", bound=InFlight)
T = TypeVar("T")


class JobLoop(ABC, Generic[F, T]):
    """The loop, and the rows in it."""

    def __init__(
        self,
        client: JobReader,
        limit: FleetLimit,
        *,
        poll_s: float,
        readers: int,
        batch: int = BATCH,
    ) -> None:
        """
        Arguments:
            poll_s: time between two polls of the open jobs.
            readers: results that are read at the same time: a store takes tens of milliseconds for each.
            batch: rows that are submitted at once.
        """
        self._reader = client
        self._limit = limit
        self._poll_s, self._readers, self._batch = poll_s, readers, batch
        self._waiting: deque[F] = deque()
        self._open: dict[str, F] = {}
        """Submitted rows by the ids of their jobs."""
        self._collecting: dict[Future[list[T | None]], list[F]] = {}
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="rows")
        self._paused_until_s = 0.0
        self._poll_at_s = 0.0
        self._has_more = True
        """False once `_take_rows` has taken the last row."""

    # -- the rows, and their outcomes

    @abstractmethod
    def _take_rows(self) -> None:
        """Takes rows until enough are in flight: into `_waiting`, or by `_start_collecting`."""

    @abstractmethod
    def _submit_rows(self, flights: Sequence[F]) -> Sequence[Job | errors.VideoQAError | None]:
        """Submits rows; returns the job of each, or why there is none; None: it is to be submitted again."""

    @abstractmethod
    def _collect_result(self, flight: F) -> T | None:
        """Returns the outcome of a row, or None if it has to be submitted (again); runs in several threads."""

    @abstractmethod
    def _finish(self, flight: F, outcome: T) -> None:
        """Takes the outcome of a row."""

    @abstractmethod
    def _refuse(self, flight: F, error: errors.VideoQAError) -> T | None:
        """Returns the outcome of a row that was refused for good; None if it is to be submitted again."""

    @abstractmethod
    def _note(self, text: str) -> None:
        """Reports why the loop waits."""

    def _reopen(self, flight: F, job: Job) -> None:
        """Looks at a row's job once it is submitted: it may be one of an earlier run, which has ended."""

    def _check_ended(self, job: Job | None) -> None:
        """Looks at a job that has ended without a result."""

    def _after_round(self) -> None:
        """Publishes what a round has changed."""

    # -- the loop

    def run(self) -> None:
        """Goes on until all rows have their outcome."""
        try:
            while self._has_more or self._waiting or self._open or self._collecting:
                self._take_rows()
                self._submit_waiting()
                self._poll_open()
                self._collect()
                self._after_round()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    # -- rows to jobs

    def _submit_waiting(self) -> None:
        while self._waiting and len(self._open) < self._limit.read() and self._may_submit():
            room = min(self._batch, self._limit.read() - len(self._open), len(self._waiting))
            self._submit([self._waiting.popleft() for _ in range(room)])
            if not self._limit.has_workers:
                self._note(self._limit.describe_missing())

    def _may_submit(self) -> bool:
        """Tells if rows may be submitted now."""
        return time.monotonic() >= self._paused_until_s

    def _submit(self, flights: Sequence[F]) -> None:
        """Submits rows; those that cannot be submitted now wait again, in front."""
        try:
            found = self._submit_rows(flights)
        except _AWAY as error:
            self._waiting.extendleft(reversed(flights))
            self._wait_for_server(error)
            return
        again: list[F] = []
        for flight, one in zip(flights, found, strict=True):
            if isinstance(one, Job):
                if not self._open_job(flight, one):
                    again.append(flight)
            elif one is None or self._has_to_wait(flight, one):
                again.append(flight)
        self._waiting.extendleft(reversed(again))

    def _has_to_wait(self, flight: F, error: errors.VideoQAError) -> bool:
        """Handles a row that was not submitted; returns True if it is to be submitted again."""
        match error:
            case errors.IdempotencyConflict() | errors.LookupFailed():
                flight.number += 1  # the job of this key is another one, gone, or unreadable
            case errors.QueueFull():
                self._pause(f"waiting for room in the queue: {error.message}")
            case errors.Unavailable() | errors.RateLimited():
                self._wait_for_server(error)
            case _:
                outcome = self._refuse(flight, error)
                if outcome is not None:
                    self._finish(flight, outcome)
                return outcome is None
        return True

    def _open_job(self, flight: F, job: Job) -> bool:
        """Opens a submitted row; returns False if its failed job has to be retried and cannot be now."""
        try:
            self._reopen(flight, job)
        except _AWAY as error:
            self._wait_for_server(error)
            return False
        flight.job_id = job.id
        self._open[job.id] = flight
        return True

    def _wait_for_server(self, error: errors.VideoQAError) -> None:
        server = "Redis" if isinstance(error, errors.RedisUnavailable) else "the gateway"
        self._pause(f"waiting for {server}: {error.message}")

    def _pause(self, why: str, seconds: float = PAUSE_S) -> None:
        self._note(why)
        self._paused_until_s = time.monotonic() + seconds

    # -- jobs to outcomes

    def _poll_open(self) -> None:
        """Reads the states of all open jobs, every `poll_s`; sooner if most had ended at the last poll."""
        now_s = time.monotonic()
        if now_s < max(self._poll_at_s, self._paused_until_s) or not self._open:
            return
        ids = list(self._open)
        try:
            states = self._reader.get_states(ids)
            ended = [
                job_id
                for job_id, state in zip(ids, states, strict=True)
                if state is None or state in FINAL_STATES
            ]
            by_id = dict(zip(ids, states, strict=True))
            failed = [job_id for job_id in ended if by_id[job_id] not in (None, "succeeded")]
            jobs = dict(zip(failed, self._reader.get_many(failed), strict=True)) if failed else {}
        except _AWAY as error:
            self._wait_for_server(error)
            return
        if 2 * len(ended) < len(ids):
            self._poll_at_s = now_s + self._poll_s
        flights = [self._open.pop(job_id) for job_id in ended]
        for job_id, flight in zip(ended, flights, strict=True):
            flight.state, flight.job = by_id[job_id], jobs.get(job_id)
            self._check_ended(flight.job)
        self._start_collecting(flights)

    @property
    def _most_collecting(self) -> int:
        return 4 * COLLECTED * self._readers

    def _count_collecting(self) -> int:
        return sum(map(len, self._collecting.values()))

    def _start_collecting(self, flights: Sequence[F]) -> None:
        size = max(1, min(COLLECTED, len(flights) // self._readers))
        for first in range(0, len(flights), size):
            batch = list(flights[first : first + size])
            self._collecting[self._pool.submit(self._collect_batch, batch)] = batch

    def _collect_batch(self, flights: Sequence[F]) -> list[T | None]:
        return [self._collect_result(flight) for flight in flights]

    def _collect(self) -> None:
        """Waits briefly for results that are being read; this is also the pause of the loop."""
        rest_s = min(self._poll_s, PAUSE_S) / 5
        if not self._collecting:
            if time.monotonic() < max(self._poll_at_s, self._paused_until_s):
                time.sleep(rest_s)
            return
        ended, _ = wait(self._collecting, timeout=rest_s, return_when=FIRST_COMPLETED)
        for future in ended:
            for flight, outcome in zip(self._collecting.pop(future), future.result(), strict=True):
                if outcome is None:
                    self._waiting.append(flight)
                else:
                    self._finish(flight, outcome)
