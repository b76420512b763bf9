"""JobSelection: a filter as the scripts take it, and what is looked at in a request: text, summary, index names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from videoqa import errors
from videoqa.contract import (
    OTHER_CODE,
    JobFilter,
    JobRequest,
    JobState,
    JobSummary,
    is_file_id,
    redact_url,
)
from videoqa.jobs.list_cursor import ListCursor

__all__ = [
    "DEAD_CODES",
    "JobSelection",
    "ListedJobs",
    "find_index_code",
    "has_text",
    "make_filters",
    "summarize_request",
]

DEAD_CODES = (*sorted(errors.REGISTRY), OTHER_CODE)
"""Codes by which dead letters are listed."""
MOST_SHOWN = 200
"""Characters of a question, or of an input's name, in a summary."""


def find_index_code(code: str) -> str:
    """Returns the code under which a failure is listed."""
    return code if code in errors.REGISTRY else OTHER_CODE


def make_filters(tags: Sequence[str], model: str | None) -> list[str]:
    """Returns the names of the indexes in which a job with these tags and this model stands."""
    of_tags = [f"tag={tag}" for tag in dict.fromkeys(tags)]
    return of_tags + ([f"model={model}"] if model is not None else [])


def has_text(request: str, text: str) -> bool:
    """Tells if a question of a stored request, or the URL of an input without its secrets, has this text.

    The URL of an uploaded file is not looked at, only the file's id: callers never see where it lies.
    """
    try:
        found = json.loads(request)
        texts = [one["text"] for one in found["questions"]]
        texts += [_find_shown_url(one["url"]) for one in found["inputs"]]
    except (ValueError, RecursionError, TypeError, KeyError):
        return False
    wanted = text.casefold()
    return any(wanted in one.casefold() for one in texts if isinstance(one, str))


def _find_shown_url(url: str) -> str:
    """Returns the id of an uploaded file for the URL under which it is stored; any other URL without its secrets."""
    file_id = url.rsplit("/", 2)[-2] if url.count("/") >= 2 else ""
    return file_id if is_file_id(file_id) else redact_url(url)


def summarize_request(request: JobRequest) -> JobSummary:
    """Returns the beginning of a request, without secrets."""
    shown = _find_shown_url(request.inputs[0].url)
    name = unquote(shown.rstrip("/").rpartition("/")[2]) or shown
    return JobSummary(
        question=request.questions[0].text.strip()[:MOST_SHOWN],
        questions=len(request.questions),
        input=name[:MOST_SHOWN],
        inputs=len(request.inputs),
    )


@dataclass(frozen=True)
class JobSelection:
    """A filter, and what a bulk action adds to it."""

    filter: JobFilter
    states: tuple[JobState, ...] = ()
    """Only jobs in one of these states, if the filter names none."""
    cut_off_s: float | None = None
    """UNIX time; only jobs that have been in their state since then or longer."""
    is_ascending: bool = False
    """The oldest come first."""

    @property
    def listed_states(self) -> tuple[JobState, ...]:
        """The states of the selected jobs; empty: any."""
        if self.filter.is_dead:
            return ("failed",)
        return (self.filter.state,) if self.filter.state else self.states

    def to_json(self, tenant: str | None) -> str:
        """Returns the table that `lua/selection.lua` works with.

        Arguments:
            tenant: the only one whose jobs there are; None: those of all.
        """
        which, states = self.filter, self.listed_states
        code = which.code and find_index_code(which.code)
        names = make_filters([which.tag] if which.tag else [], which.model)
        fields: dict[str, Any] = {
            "names": names,
            "quoted": [json.dumps(name, ensure_ascii=False) for name in names],
            "states": states or None,
            "has_open": {"queued", "running"} <= set(states) or None,
            "is_dead": which.is_dead or None,
            "tenant": which.tenant if tenant is None else tenant,
            "code": code,
            "group": which.group,
            "worker": which.worker,
            "custom_id": which.custom_id,
            "job_id": which.job_id,
            "since": _to_seconds(which.since),
            "until": _to_seconds(which.until),
            "ended_since": _to_seconds(which.ended_since),
            "ended_until": _to_seconds(which.ended_until),
            "cut_off": self.cut_off_s,
            "ascending": self.is_ascending or None,
        }
        kept = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(kept, ensure_ascii=False)


def _to_seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


@dataclass(frozen=True)
class ListedJobs:
    """Selected positions in an index, in its order; their records may be gone."""

    found: list[ListCursor]
    keys: Sequence[str]
    """The keys of the index."""
    gone: Sequence[str]
    """Ids that stand there without a record."""
    looked_at: int
    last: ListCursor | None
    """The last position that was looked at; None: the index has no more."""
