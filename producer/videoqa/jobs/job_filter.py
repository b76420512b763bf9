"""JobFilter: the jobs that a list is of, by state, tag, model and time, and the index keys that hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from videoqa.contract import FINAL_STATES, JobState
from videoqa.jobs.list_cursor import ListCursor

__all__ = ["JobFilter", "ListedJobs", "make_filters", "parse_filters"]


def make_filters(tags: Sequence[str], model: str | None) -> list[str]:
    """Returns the names of the indexes in which a job with these tags and this model stands."""
    of_tags = [f"tag={tag}" for tag in dict.fromkeys(tags)]
    return of_tags + ([f"model={model}"] if model is not None else [])


def parse_filters(text: str) -> set[str]:
    """Parses the field `filters` of a record; there are none in one that another program wrote."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


@dataclass(frozen=True)
class JobFilter:
    """Selection of the jobs that are listed; a field that is None selects all."""

    state: JobState | None = None
    tag: str | None = None
    model: str | None = None
    since_s: float | None = None
    """UNIX time; jobs submitted then or later."""
    until_s: float | None = None
    """UNIX time; jobs submitted before."""

    @property
    def names(self) -> list[str]:
        """The names of the indexes that each selected job stands in."""
        return make_filters([] if self.tag is None else [self.tag], self.model)

    @property
    def is_walked(self) -> bool:
        """No index holds just these jobs, so each job of one is looked at."""
        is_of_state = self.state in FINAL_STATES
        return (self.state is not None and not is_of_state) or len(self.names) + is_of_state > 1

    def selects(self, state: str | None, filters: str | None) -> bool:
        """Tells of the fields of a job's record if it is selected; the time of its submission is not looked at."""
        if state is None:
            return True  # it has no record: who reads that finds out
        return self.state in (None, state) and set(self.names) <= parse_filters(filters or "")


@dataclass(frozen=True)
class ListedJobs:
    """Positions in an index, newest first; their records may be gone."""

    found: list[ListCursor]
    """Those of selected jobs."""
    keys: Sequence[str]
    """The keys of the index."""
    last: ListCursor | None
    """The last position that was looked at; None: the index has no more."""
