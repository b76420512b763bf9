"""BulkAction: a change of all jobs that a filter selects, in batches, with its progress."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from videoqa.contract.job import Job
from videoqa.contract.job_counts import JobCount
from videoqa.contract.job_filter import JobFilter
from videoqa.contract.model import Model

__all__ = ["BulkAction", "BulkKind", "BulkPreview", "BulkRefusal", "BulkStatus"]

BulkKind = Literal["cancel", "retry", "purge"]
"""cancel: jobs that are queued or running. retry: failed ones, or canceled or expired ones if the filter names that
state. purge: the records of final ones are deleted."""
BulkStatus = Literal["pending", "running", "completed", "stopped", "failed"]
"""pending: nobody has begun it. stopped: on request, or since its API key is no longer valid."""


class BulkPreview(Model):
    """The jobs that a bulk action would change if it began now."""

    action: BulkKind
    filter: JobFilter
    cut_off: AwareDatetime
    """Time of the preview; jobs that come to match later stay untouched if the action begins with it."""
    count: JobCount
    examples: tuple[Job, ...]
    """Some of them, in the order of the change."""


class BulkRefusal(Model):
    """A job that the action left as it was."""

    job_id: str
    reason: str
    """Code of an error, or the state that the job was in."""


class BulkAction(Model):
    """A bulk action and its progress."""

    id: str
    action: BulkKind
    filter: JobFilter
    cut_off: AwareDatetime
    status: BulkStatus
    expected: int | None = None
    """Number of jobs that the preview had."""
    changed: int = Field(default=0, ge=0)
    """Number of jobs that were changed so far."""
    looked_at: int = Field(default=0, ge=0)
    refused: int = Field(default=0, ge=0)
    refusals: tuple[BulkRefusal, ...] = ()
    """The first 100 jobs that were refused."""
    who: str = ""
    """Id of the API key, or `shell:USER`."""
    tenant: str | None = None
    """Tenant of whoever began it, who alone sees it beside operators."""
    message: str | None = None
    """Reason why it has stopped or failed."""
    created_at: AwareDatetime
    updated_at: AwareDatetime

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "stopped", "failed")
