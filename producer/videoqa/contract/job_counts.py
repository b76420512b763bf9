"""JobCount, DeadCount, DeadGroup: numbers of jobs, each with the filter that lists just these."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from videoqa.contract.job import Failure
from videoqa.contract.model import Model

__all__ = ["DeadCount", "DeadGroup", "DeadGroups", "JobCount"]


class JobCount(Model):
    """Number of jobs that a filter selects."""

    count: int = Field(ge=0)
    is_exact: bool = True
    """False: it is that of the first `looked_at` jobs, and there may be more."""
    looked_at: int = Field(default=0, ge=0)
    """Jobs whose records were looked at; 0: an index has the number."""

    @property
    def text(self) -> str:
        """The number for people: `1,204`, or `37+` where there may be more."""
        return f"{self.count:,}" if self.is_exact else f"{self.count:,}+"


class DeadCount(Model):
    """Numbers of the dead letters with one code: that many failed for good within the last hour, day and week."""

    code: str
    hour: int = Field(ge=0)
    """`list(code=..., ended_since=...)` of an hour ago has these."""
    day: int = Field(ge=0)
    week: int = Field(ge=0)
    all: int = Field(ge=0)
    """All whose records are kept."""


class DeadGroup(Model):
    """Failures with the same code, and the same message but for numbers, names and URLs in it."""

    code: str
    group: str = Field(pattern="^[0-9a-f]{8}$")
    """Value of the filter `group`, by which just these are listed."""
    failure: Failure
    """Failure of the newest one."""
    count: int = Field(ge=1)
    job_ids: tuple[str, ...]
    """The newest of these jobs, five at most."""
    first_at: AwareDatetime
    """Failure of the oldest one that was looked at."""
    last_at: AwareDatetime


class DeadGroups(Model):
    """The groups of one code's failures, the largest in front."""

    code: str
    groups: tuple[DeadGroup, ...]
    looked_at: int = Field(ge=0)
    """Number of the newest failures that were looked at, 2,000 at most."""
    has_more: bool
    """True if older failures were not looked at, so that counts may be larger."""
