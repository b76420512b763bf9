"""BatchLoop: the lines of a batch become bulk jobs, by the loop of `videoqa caption`, and these become outcomes.

It runs in a thread. Each line's job has an idempotency key of its own, so that a process that takes the batch over
finds the jobs that another one has submitted. Once the batch is canceled or its time is over, no line is submitted any
more: jobs that were submitted are canceled, and what they have answered by then counts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from videoqa import errors
from videoqa.bulk import FleetLimit, JobLoop, RunAnnouncer, RunProgress
from videoqa.client import Client
from videoqa.contract import FINAL_STATES, Job, JobRequest
from videoqa.gateway.batches.lines import Line, parse_line
from videoqa.gateway.batches.parts import LineOutcome, OutputParts, make_outcome
from videoqa.gateway.batches.record import BatchRecord
from videoqa.gateway.http.problems import HttpError, find_status
from videoqa.gateway.openai.completion import make_completion
from videoqa.gateway.openai.envelope import describe_error
from videoqa.gateway.openai.job_failures import make_job_error
from videoqa.telemetry import log_events

__all__ = ["BatchLoop", "Ending", "LineCalls", "Signals", "cancel_jobs"]

log = logging.getLogger(__name__)

POLL_S = 0.5
READERS = 4
TOGETHER = 16
"""Lines that are submitted at the same time; callers of the gateway use the same threads."""
SEARCHED = 500
"""Lines whose jobs are looked for in one round trip, once the batch ends early."""
ENDING_S = 60.0
"""Time that canceled jobs get to end."""
MOST_JOBS = 3
"""Jobs of one line, if the results of others were deleted before they were read."""

Ending = Literal["batch_cancelled", "batch_expired"]
_REASONS: dict[Ending, str] = {
    "batch_cancelled": "the batch was cancelled before this line was answered",
    "batch_expired": "the 24 hours of the batch were over before this line was answered",
}


@dataclass
class Signals:
    """Words of the gateway to a loop, from another thread."""

    stop: threading.Event = field(default_factory=threading.Event)
    """The loop ends where it is: the gateway ends, or another one has taken the batch."""
    ending: Ending | None = None
    """The batch ends early."""


@dataclass(frozen=True)
class LineCalls:
    """Calls of the gateway for the key that made the batch."""

    submit: Callable[[Sequence[Line]], Sequence[Job | errors.VideoQAError]]
    find_jobs: Callable[[Sequence[str]], Sequence[str | None]]
    """Returns the ids of the jobs that these idempotency keys have made."""


class Stopped(Exception):
    """The loop was told to stop."""


def cancel_jobs(client: Client, job_ids: Sequence[str]) -> None:
    """Cancels those of these jobs that have not ended."""
    states = client.get_states(job_ids) if job_ids else []
    for job_id, state in zip(job_ids, states, strict=True):
        if state is not None and state not in FINAL_STATES:
            with suppress(errors.LookupFailed):
                client.cancel(job_id)


class BatchLoop(JobLoop[Line, LineOutcome]):
    """The loop of one batch."""

    def __init__(
        self,
        record: BatchRecord,
        lines: Iterator[bytes],
        *,
        client: Client,
        calls: LineCalls,
        parts: OutputParts,
        signals: Signals,
        announcer: RunAnnouncer,
        total: int,
        most_line_bytes: int,
    ) -> None:
        super().__init__(
            client, FleetLimit(client, None), poll_s=POLL_S, readers=READERS, batch=TOGETHER
        )
        self._record = record
        self._lines = enumerate(lines)
        self._client, self._calls, self._parts, self._signals = client, calls, parts, signals
        self._most_line_bytes = most_line_bytes
        self._announcer, self._total = announcer, total
        self._completed_before = parts.tally.completed
        self.ending: Ending | None = None
        """The reason why the batch ends before its last line."""
        self._ends_at_s = 0.0
        self._submit_at_s = 0.0
        """Time until which a limit of the key lets no more lines pass; those that did are polled meanwhile."""

    def _note(self, text: str) -> None:
        log_events.BATCH_STATE.log(log, batch_id=self._record.id, state=text)
        self._announcer.note(text)

    def _after_round(self) -> None:
        self._announce()
        if self._signals.stop.is_set():
            raise Stopped
        if self.ending is None and self._signals.ending is not None:
            self.begin_ending(self._signals.ending)
        if self.ending is not None and time.monotonic() > self._ends_at_s:
            for line in self._open.values():
                self._finish(line, self._leave_out(line))
            self._open.clear()

    def _announce(self) -> None:
        tally, before = self._parts.tally, self._completed_before
        self._announcer.update(
            RunProgress(
                self._total, tally.completed - before, tally.failed, before, len(self._open)
            )
        )
        if self._may_submit() and self._limit.has_workers:
            self._announcer.note(None)

    # -- lines to jobs

    def _take_rows(self) -> None:
        if self.ending is not None:
            self._find_submitted()
            return
        room = min(
            self._limit.read() - len(self._open) - len(self._waiting),
            self._most_collecting - self._count_collecting(),
        )
        for line, request in islice(self._read(), max(0, room)):
            self._limit.add(line.make_request(self._record, request))
            self._waiting.append(line)

    def _read(self) -> Iterator[tuple[Line, JobRequest]]:
        """Yields the lines that have no outcome yet; they were checked when the batch was validated."""
        for index, data in self._lines:
            if not self._parts.has(index):
                yield parse_line(data, index, most_bytes=self._most_line_bytes)
        self._has_more = False

    def _may_submit(self) -> bool:
        return time.monotonic() >= self._submit_at_s and super()._may_submit()

    def _submit_rows(self, flights: Sequence[Line]) -> Sequence[Job | errors.VideoQAError]:
        return self._calls.submit(flights)

    def _has_to_wait(self, flight: Line, error: errors.VideoQAError) -> bool:
        if isinstance(error, errors.RateLimited) or (
            isinstance(error, HttpError) and error.status == 503
        ):
            wait_s = getattr(error, "retry_after_s", 1.0)
            self._note(error.message)
            self._submit_at_s = time.monotonic() + min(max(wait_s, 0.2), 60.0)
            return True
        return super()._has_to_wait(flight, error)

    def _refuse(self, flight: Line, error: errors.VideoQAError) -> LineOutcome:
        return self._make_failure(flight, flight.asked.translate(error), request_id="")

    # -- jobs to outcomes

    def _collect_result(self, flight: Line) -> LineOutcome | None:
        job_id = flight.job_id or ""
        try:
            result = self._client.result(job_id)
            job = self._client.get(job_id)
        except errors.JobFailed as error:
            job = flight.job or self._client.get(job_id)
            if self.ending is not None and job.state == "canceled":
                return self._leave_out(flight)
            found = flight.asked.translate(make_job_error(job, error))
            return self._make_failure(flight, found, request_id=job.id)
        except (errors.LookupFailed, errors.OutputNotFound) as error:
            flight.number += 1
            if flight.number >= MOST_JOBS:
                return self._make_failure(flight, error, request_id=job_id)
            flight.job_id = None
            return None
        except (errors.Unavailable, errors.OutputError) as error:
            self._note(error.message)
            time.sleep(1)
            return None
        body = make_completion(job, result, flight.asked.model)
        usage = body["usage"]
        return self._make(
            flight,
            response={"status_code": 200, "request_id": job.id, "body": body},
            tokens=(usage["prompt_tokens"], usage["completion_tokens"]),
        )

    def _make_failure(
        self, line: Line, error: errors.VideoQAError, *, request_id: str
    ) -> LineOutcome:
        response = {
            "status_code": find_status(error),
            "request_id": request_id,
            "body": describe_error(error),
        }
        return self._make(line, response=response)

    def _make(self, line: Line, **outcome: Any) -> LineOutcome:
        return make_outcome(self._record.id, line.index, line.custom_id, **outcome)

    def _leave_out(self, line: Line) -> LineOutcome:
        ending = self.ending or "batch_cancelled"
        return self._make(line, error={"code": ending, "message": _REASONS[ending]})

    def _finish(self, flight: Line, outcome: LineOutcome) -> None:
        self._parts.add(flight.index, outcome)
        if not outcome.is_completed:
            self._announcer.note_failure(
                outcome.code, flight.custom_id, outcome.message, flight.job_id
            )

    # -- the end of a batch before its last line

    def begin_ending(self, ending: Ending) -> None:
        """Submits no more lines, and cancels the jobs of those that were."""
        self.ending = ending
        self._ends_at_s = time.monotonic() + ENDING_S
        self._paused_until_s = 0.0
        self._open_submitted(list(self._waiting))
        self._waiting.clear()
        self._cancel(list(self._open))

    def _find_submitted(self) -> None:
        """Looks for jobs of lines that this process has not submitted; an earlier one may have."""
        lines = [line for line, _ in islice(self._read(), SEARCHED)]
        before = set(self._open)
        self._open_submitted(lines)
        self._cancel([job_id for job_id in self._open if job_id not in before])

    def _open_submitted(self, lines: Sequence[Line]) -> None:
        ids = self._calls.find_jobs([line.name_key(self._record.id) for line in lines])
        for line, job_id in zip(lines, ids, strict=True):
            if job_id is None:
                self._finish(line, self._leave_out(line))
            else:
                line.job_id = job_id
                self._open[job_id] = line

    def _cancel(self, job_ids: Sequence[str]) -> None:
        cancel_jobs(self._client, job_ids)
        self._poll_at_s = 0.0

    def _submit_waiting(self) -> None:
        if self.ending is None:
            super()._submit_waiting()
            return
        while self._waiting:
            line = self._waiting.popleft()
            if line.job_id is None:
                self._finish(line, self._leave_out(line))
            else:  # its result could not be read just now
                self._open[line.job_id] = line
