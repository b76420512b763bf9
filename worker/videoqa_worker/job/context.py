"""The context of an attempt: its request, the control that ends it, and the way to report its progress.

The steps of an attempt check the control while they fetch, decode and generate, and call `Report`
without knowing where it leads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from videoqa.contract import JobRequest
from videoqa.errors import JobCanceled, JobError, JobTimeout, LeaseLost
from videoqa.jobs import Progress, WriteReply
from videoqa_worker.job.sheet import JobSheet
from videoqa_worker.job.tally import AttemptTally
from videoqa_worker.job.trace import NO_TRACE, AttemptTrace

__all__ = ["AttemptContext", "JobControl", "Progress", "Report", "apply_status"]


class Report(Protocol):
    """Reports progress, of one step or of several; raises the reason if the attempt should end."""

    def __call__(self, *steps: Progress) -> None: ...


class JobControl:
    """Set from the heartbeat's thread, read from the job's own. Knows nothing of Redis."""

    def __init__(
        self,
        job_id: str,
        attempt: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        token: str = "",
    ) -> None:
        """
        Arguments:
            token: of the claim; it fences every write of the attempt.
        """
        self.job_id = job_id
        self.attempt = attempt
        self.token = token
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline = clock() + timeout_s
        self._reason: JobError | None = None
        self._lock = threading.Lock()

    def stop(self, reason: JobError) -> None:
        """Ends the attempt at its next check; the first reason stays."""
        with self._lock:
            self._reason = self._reason or reason

    def is_stopped(self) -> bool:
        """Cheap enough for every decode step."""
        return self._reason is not None or self._clock() > self._deadline

    def check(self) -> None:
        """Raises the reason if the attempt should end: JobCanceled, JobTimeout, LeaseLost..."""
        if self._reason is not None:
            raise self._reason
        if self._clock() > self._deadline:
            raise JobTimeout(f"the attempt ran longer than timeout_s={self._timeout_s:g}")


def apply_status(control: JobControl, status: WriteReply) -> None:
    """Stops the attempt if Redis says that its job is canceled or was claimed by another worker."""
    if status == "cancel":
        control.stop(JobCanceled("canceled on request"))
    elif status == "lost":
        control.stop(
            LeaseLost(f"attempt {control.attempt} of {control.job_id} is no longer this worker's")
        )


@dataclass(frozen=True)
class AttemptContext:
    """The request of an attempt, the control that ends it, and the way to report its progress."""

    request: JobRequest
    control: JobControl
    report: Report
    sheet: JobSheet = field(default_factory=JobSheet.none)
    tally: AttemptTally = field(default_factory=AttemptTally)
    trace: AttemptTrace = NO_TRACE
