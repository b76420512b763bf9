"""JobFilter: the jobs that a list, a count or a bulk action is about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypedDict, cast, get_args

from pydantic import AwareDatetime, Field, ValidationError

from videoqa import errors
from videoqa.contract.job import JobState
from videoqa.contract.mistakes import refuse_mistake
from videoqa.contract.model import Model

__all__ = [
    "MOST_TEXT",
    "OTHER_CODE",
    "FilterKeywords",
    "JobFilter",
    "check_instant",
    "parse_filter",
]

MOST_TEXT = 200
"""Most characters of the text that jobs are searched for."""
OTHER_CODE = "other"
"""Code under which failures are listed whose own code this release does not know."""

_Name = Annotated[str, Field(min_length=1, max_length=1000)]


class JobFilter(Model):
    """Selection of jobs; a field that is None selects all, and fields combine."""

    state: JobState | None = None
    tenant: _Name | None = None
    """Only this tenant's jobs; a client of a tenant sees no others anyway."""
    model: _Name | None = None
    tag: _Name | None = None
    code: _Name | None = None
    """Error code of jobs that failed for good: the dead letters; `other` for codes that this release does not know."""
    group: str | None = Field(default=None, pattern="^[0-9a-f]{8}$")
    """Group of failures with the same code and message, as `group_dead` names it."""
    worker: _Name | None = None
    """Id of the worker of the last attempt."""
    custom_id: _Name | None = None
    """Beginning of the `custom_id`, or all of it."""
    job_id: _Name | None = None
    """Beginning of the id, or all of it."""
    text: str | None = Field(default=None, min_length=1, max_length=MOST_TEXT)
    """Text in a question or in the URL of an input, in any case."""
    since: AwareDatetime | None = None
    """Submitted at this time or later."""
    until: AwareDatetime | None = None
    """Submitted before this time."""
    ended_since: AwareDatetime | None = None
    """Ended at this time or later, so final."""
    ended_until: AwareDatetime | None = None
    """Ended before this time."""

    @property
    def is_dead(self) -> bool:
        """True if only dead letters are selected, which are listed by the time of their failure."""
        has_ended = self.ended_since is not None or self.ended_until is not None
        return (
            self.code is not None
            or self.group is not None
            or (self.state == "failed" and has_ended)
        )

    @property
    def words(self) -> str:
        """The filter as `state=failed code=model_error`, for people and the audit log."""
        found = self.model_dump(mode="json", exclude_none=True)
        return " ".join(f"{name}={value}" for name, value in found.items())


class FilterKeywords(TypedDict, total=False):
    """The fields of a `JobFilter` as keywords."""

    state: JobState | None
    tenant: str | None
    model: str | None
    tag: str | None
    code: str | None
    group: str | None
    worker: str | None
    custom_id: str | None
    job_id: str | None
    text: str | None
    since: datetime | None
    until: datetime | None
    ended_since: datetime | None
    ended_until: datetime | None


def parse_filter(fields: Mapping[str, Any]) -> JobFilter:
    """Returns the filter with these fields; raises InvalidRequest, whose `param` is the first wrong one's name."""
    for name, value in fields.items():
        if isinstance(value, str) and not _can_be_sent(value):
            raise errors.InvalidRequest(
                f"got {name} {value!r:.100}, expected text that has a UTF-8", param=name[:100]
            )
        if name in _TIMES:
            check_instant(name, value)
    state = fields.get("state")
    if state is not None and state not in get_args(JobState):
        raise errors.InvalidRequest(
            f"got state {state!r:.100}, expected one of {', '.join(get_args(JobState))}",
            param="state",
        )
    try:
        found = JobFilter.model_validate(dict(fields))
    except ValidationError as error:
        raise refuse_mistake(cast("Any", error.errors(include_url=False)[0])) from error
    if found.state not in (None, "failed") and (found.code or found.group):
        raise errors.InvalidRequest(
            f"got state {found.state!r} with a code or a group, expected failed or none: only dead letters have these",
            param="state",
        )
    return found


_TIMES = ("since", "until", "ended_since", "ended_until")


def check_instant(name: str, at: Any) -> None:
    """Refuses what is no time, and a time without a zone, which would depend on the machine's."""
    if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
        raise errors.InvalidRequest(
            f"got {name}={at!r:.100}, expected a datetime with a time zone, such as "
            "datetime.now(UTC) - timedelta(hours=1)",
            param=name,
        )


def _can_be_sent(text: str) -> bool:
    """Returns False for a text with a lone surrogate, which has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
