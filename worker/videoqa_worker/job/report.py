"""Reports of an attempt: where it is, told to whoever waits for the job.

Knows the shape of a report, and nothing of Redis: the steps of an attempt call `Report` without
knowing where it leads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from videoqa.contract import JobRequest
from videoqa.jobs import Progress
from videoqa_worker.job.cancellation import JobControl

__all__ = ["AttemptContext", "Progress", "Report"]

Report = Callable[[Progress], None]
"""Reports progress; raises the reason if the attempt should end, as `JobControl.check` does."""


@dataclass(frozen=True)
class AttemptContext:
    """The request of an attempt, the control that ends it, and the way to report its progress."""

    request: JobRequest
    control: JobControl
    report: Report
