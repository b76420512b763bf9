"""ArchiveRun: a run of `videoqa caption`, or a batch, as it announces itself to the fleet.

The run sends a `RunReport` every few seconds; Redis adds the times, by its own clock. All parts are bounded, so that a
run of a million rows costs some kilobytes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field, computed_field

from videoqa.contract.model import Model
from videoqa.redaction import redact_text, redact_url

__all__ = [
    "MOST_EXAMPLES",
    "MOST_RUN_CODES",
    "ArchiveRun",
    "FailedRow",
    "RunFailures",
    "RunKind",
    "RunPage",
    "RunReport",
    "RunState",
    "make_failed_row",
]

RunKind = Literal["caption", "batch"]
RunState = Literal["running", "interrupted", "finished", "failed", "cancelled"]

MOST_RUN_CODES = 20
"""Most codes whose failures are counted apart; failures of further ones are in `failed` only."""
MOST_EXAMPLES = 5
"""Most rows that are named for each code."""
_MOST_NAME, _MOST_MESSAGE = 200, 300


class FailedRow(Model):
    """A row that has no result."""

    row: str = Field(max_length=_MOST_NAME)
    """Name of the row, its `custom_id`."""
    message: str = Field(default="", max_length=_MOST_MESSAGE)
    job_id: str | None = Field(default=None, max_length=_MOST_NAME)
    """Its job; None: it was refused, or failed in an earlier run."""


class RunFailures(Model):
    """The failures of one code."""

    code: str = Field(min_length=1, max_length=64)
    count: int = Field(ge=1, le=10**12)
    examples: tuple[FailedRow, ...] = Field(default=(), max_length=MOST_EXAMPLES)
    """The first rows with this code; empty in lists of runs."""


class RunReport(Model):
    """The words of a run about itself."""

    id: str = Field(pattern=r"^(run|batch)_[0-9A-Za-z]{24}$")
    """Id of the run; all starts of `videoqa caption` into one output share it."""
    kind: RunKind
    name: str = Field(min_length=1, max_length=_MOST_NAME)
    """The sources of the run, or the name of a batch's input file; URLs without credentials and query."""
    output: str | None = Field(default=None, max_length=2048)
    """Folder or prefix of the results, without credentials and query; None: not known yet."""
    tenant: str | None = Field(default=None, min_length=1, max_length=128)
    who: str | None = Field(default=None, max_length=_MOST_NAME)
    """The user of the command line, or the id of the API key."""
    host: str | None = Field(default=None, max_length=_MOST_NAME)
    """Machine on which it runs."""
    state: RunState = "running"
    message: str | None = Field(default=None, max_length=_MOST_MESSAGE)
    """The reason of a failed run's end, or of one that waits."""
    total: int = Field(default=0, ge=0, le=10**12)
    """Rows of the run."""
    done: int = Field(default=0, ge=0, le=10**12)
    """Rows answered since its last start."""
    failed: int = Field(default=0, ge=0, le=10**12)
    skipped: int = Field(default=0, ge=0, le=10**12)
    """Rows that had a result before its last start."""
    in_flight: int = Field(default=0, ge=0, le=10**12)
    """Rows that are jobs now."""
    rate: float = Field(default=0.0, ge=0, le=1e9)
    """Rows answered in a second, of the last half minute."""
    failures: tuple[RunFailures, ...] = Field(default=(), max_length=MOST_RUN_CODES)
    """By code, the most frequent one in front."""

    @property
    def finished(self) -> int:
        """Rows that have an outcome."""
        return self.done + self.skipped + self.failed


class ArchiveRun(RunReport):
    """A run with its times, on the clock of Redis."""

    starts: int = Field(default=1, ge=1)
    """Times that it was started: an interrupted run is continued under the same id."""
    first_at: AwareDatetime
    """Its first start."""
    started_at: AwareDatetime
    """Its last start."""
    seen_at: AwareDatetime
    """Its last word."""
    ended_at: AwareDatetime | None = None
    """Its end; None: it runs, or said nothing more."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def left_s(self) -> float | None:
        """Seconds that the other rows take at this rate; null: unknown."""
        left = max(0, self.total - self.finished)
        is_known = self.state == "running" and self.rate > 0
        return left / self.rate if is_known else None


class RunPage(Model):
    """A page of the runs, the last start in front."""

    runs: tuple[ArchiveRun, ...]
    next_cursor: str | None = None
    """Cursor of the next page; None: there is none."""


def make_failed_row(row: str, message: str, job_id: str | None) -> FailedRow:
    """Makes an example of a failure: cut off, and without what opens a door."""
    name = redact_url(row) if "://" in row else row
    return FailedRow(
        row=name[:_MOST_NAME], message=redact_text(message)[:_MOST_MESSAGE], job_id=job_id
    )
