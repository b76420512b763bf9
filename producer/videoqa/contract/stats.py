"""Stats: what the fleet does and did, by model, over the last hour or day; and what needs an operator's attention."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from videoqa.contract.job import Failure, Job
from videoqa.contract.model import Model
from videoqa.contract.request import Priority
from videoqa.errors import Stage

__all__ = [
    "Attempt",
    "AttemptOutcome",
    "Attention",
    "AttentionCode",
    "JobTimeline",
    "ModelStats",
    "Severity",
    "StageSeconds",
    "Stats",
    "StatsPoint",
    "StatsSpan",
    "StatsTotals",
]

StatsSpan = Literal["hour", "day"]
Severity = Literal["critical", "warning", "notice"]
AttentionCode = Literal[
    "no_worker",
    "failures",
    "start_by_near",
    "workers_loading",
    "queue_paused",
    "worker_silent",
    "worker_broken",
    "workers_lost",
    "jobs_expired",
    "dead_letters_rose",
    "backlog",
    "revisions_differ",
    "webhooks_late",
    "versions_differ",
]


class StatsTotals(Model):
    """Counts of what happened to jobs in a time. The end of a job counts each time, so a retried one counts twice."""

    submitted: int = Field(default=0, ge=0)
    """Jobs that were recorded, or retried on request."""
    succeeded: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    canceled: int = Field(default=0, ge=0)
    expired: int = Field(default=0, ge=0)
    retried: int = Field(default=0, ge=0)
    """Attempts that failed, of jobs that were tried again."""
    cached: int = Field(default=0, ge=0)
    """Jobs of `succeeded` whose answers came from an earlier job."""
    frames: int = Field(default=0, ge=0)
    """Frames that the model saw."""
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)

    @property
    def ended(self) -> int:
        """Jobs that ended, whichever way."""
        return self.succeeded + self.failed + self.canceled + self.expired


class StatsPoint(StatsTotals):
    """The counts of one step of a series."""

    at: AwareDatetime
    """Begin of the step."""
    queued_p50_s: float | None = None
    """Median of the seconds in the queue, of the jobs that succeeded; None: none did."""
    generating_p50_s: float | None = None


class StageSeconds(Model):
    """The seconds that jobs were in a stage, of those that succeeded; from a histogram, so p50 to p99 are estimates."""

    jobs: int = Field(default=0, ge=0)
    sum_s: float = Field(default=0.0, ge=0)
    mean_s: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None


class ModelStats(Model):
    """The figures of one model; or of all, or of the jobs that name none."""

    model: str | None = None
    """None: jobs that name no model, which `VIDEOQA_SERVE_DEFAULT` workers take; or those of `other` or of all."""
    other: bool = False
    """True for the models beyond the first 50 that no worker serves."""
    waiting: int = Field(default=0, ge=0)
    running: int = Field(default=0, ge=0)
    delayed: int = Field(default=0, ge=0)
    """Jobs between two attempts."""
    oldest_s: float | None = None
    """Seconds since the submission of the job that waits longest and may begin; None: none waits."""
    paused: bool = False
    """True if the queue of a priority is paused."""
    workers: int = Field(default=0, ge=0)
    """Ready workers that serve it."""
    slots: int = Field(default=0, ge=0)
    jobs_per_minute: float = Field(default=0.0, ge=0)
    """Jobs that ended, whichever way, in the last five minutes, by 5."""
    tokens_s: float = Field(default=0.0, ge=0)
    """Tokens a second of the answers of jobs that succeeded in the last five minutes."""
    totals: StatsTotals = StatsTotals()
    """Counts of the span."""
    failures: dict[str, int] = Field(default_factory=dict)
    """Jobs that failed in the span, by code, the most frequent in front."""
    retries: dict[str, int] = Field(default_factory=dict)
    """Attempts that failed in the span and were followed by another one, by code."""
    stages: dict[str, StageSeconds] = Field(default_factory=dict)
    """Seconds by stage, `queued`, `fetching`, `sampling`, `generating` and `storing`, in the span."""
    series: tuple[StatsPoint, ...] = ()
    """Counts of each step of the span, the oldest in front, the running one last."""


class Attention(Model):
    """A fact that needs an operator's attention, as a sentence."""

    severity: Severity
    code: AttentionCode
    message: str
    """The finding, and the next step."""
    about: Literal["model", "queue", "worker", "failures", "webhooks"]
    """Page that the sentence leads to."""
    model: str | None = None
    """Model that it is about; None: jobs that name none, unless `about` is of workers or webhooks."""
    priority: Priority | None = None
    worker: str | None = None
    failure: str | None = None
    """Code of the failures that it is about."""


class Stats(Model):
    """The figures of the fleet at one time."""

    span: StatsSpan
    at: AwareDatetime
    """Now, on the clock of Redis."""
    since: AwareDatetime
    """Begin of the first step."""
    step_s: int
    """Seconds of a step: 60 for an hour, 900 for a day."""
    attention: tuple[Attention, ...] = ()
    """Findings for an operator, the most severe in front; always of the whole fleet and the last hour."""
    all: ModelStats
    """The sum of all models."""
    models: tuple[ModelStats, ...]
    """Models that workers serve, or of which jobs wait, run or ended within a day; by name."""


AttemptOutcome = Literal["running", "succeeded", "failed", "canceled", "returned"]


class Attempt(Model):
    """One attempt of a job."""

    number: int = Field(ge=1)
    outcome: AttemptOutcome
    """failed: the job may have been tried again after it; returned: its worker shut down and gave the job back."""
    worker: str | None = None
    queued_at: AwareDatetime | None = None
    """Time at which the job came to stand in line for it."""
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    queued_s: float | None = None
    """Seconds in line."""
    running_s: float | None = None
    """Seconds that it ran; of a running one, so far."""
    stages: dict[Stage, float] = Field(default_factory=dict)
    """Seconds by stage; of the last one of a running attempt, so far."""
    failure: Failure | None = None
    meaning: str | None = None
    """Meaning of the failure's code."""
    next_step: str | None = None
    """Advice about the failure, by its code."""


class JobTimeline(Model):
    """A job, and its attempts, those included before a retry on request."""

    job: Job
    """The job with `position` and `waiting_for`."""
    at: AwareDatetime
    """Now, on the clock of Redis."""
    attempts: tuple[Attempt, ...]
    """The oldest in front; the last 30 and the present one are kept."""
