"""Filters of the list of jobs: from the address to the core's filter, and to words that can be taken out again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from videoqa.contract import FilterKeywords, parse_filter
from videoqa.errors import InvalidRequest

__all__ = [
    "SPANS",
    "STATES",
    "Chip",
    "JobsQuery",
    "list_options",
    "parse_time",
    "read_instant",
    "read_query",
    "read_search",
]

STATES = ("queued", "running", "canceling", "succeeded", "failed", "canceled", "expired")
_WORDS = {
    "state": "state", "q": "text", "model": "model", "tenant": "tenant", "tag": "tag", "code": "code",
    "group": "group", "worker": "worker", "custom_id": "custom id", "job_id": "id", "within": "submitted within",
    "ended_within": "ended within",
    "since": "submitted since", "until": "submitted before", "ended_since": "ended since",
    "ended_until": "ended before",
}  # fmt: skip
"""Parameters of the address, in the order in which they are shown, and their words."""
_TIMES = ("since", "until", "ended_since", "ended_until")
_SPANS_OF = {"within": "since", "ended_within": "ended_since"}
SPANS = {"1h": 3600, "24h": 86_400, "7d": 604_800}
"""Values of the parameters of `_SPANS_OF`, in seconds."""
_TOKEN = re.compile(r'(\w{1,12}):("[^"]{0,1000}"|[^\s"]{1,1000})')
_SEARCHED = {
    "state": "state", "model": "model", "tenant": "tenant", "tag": "tag", "code": "code", "worker": "worker",
    "custom_id": "custom_id", "id": "job_id", "job": "job_id",
}  # fmt: skip
_JOB_ID = re.compile(r"job_[0-9A-Za-z]{4,64}")
MOST_VALUE = 1000


@dataclass(frozen=True)
class Chip:
    """One filter in words, and the address without it."""

    name: str
    value: str
    rest: Mapping[str, str]


@dataclass(frozen=True)
class JobsQuery:
    """The filters of one address."""

    given: Mapping[str, str]
    """The parameters as they are in the address."""
    fields: FilterKeywords
    """The core's filter."""
    mistake: str = ""
    """Message about a wrong filter; empty: there is none."""

    @property
    def is_dead(self) -> bool:
        """True if the jobs come by the time of their failure, not of their submission."""
        found = parse_filter(self.fields)
        return found.is_dead

    @property
    def chips(self) -> list[Chip]:
        """The filters in words."""
        return [
            Chip(words, self.given[name], self.without(name))
            for name, words in _WORDS.items()
            if name in self.given
        ]

    @property
    def words(self) -> str:
        """All filters as one phrase."""
        return ", ".join(f"{chip.name} {chip.value}" for chip in self.chips)

    def value(self, name: str) -> str:
        """Returns a parameter; empty: the address has none."""
        return self.given.get(name, "")

    def without(self, *names: str) -> dict[str, str]:
        """Returns the parameters without some of them."""
        return {name: value for name, value in self.given.items() if name not in names}

    def with_(self, **values: str) -> dict[str, str]:
        """Returns the parameters with others."""
        return {**self.given, **values}

    @property
    def pinned(self) -> dict[str, str]:
        """The parameters with times in place of spans, so that a form means the same jobs whenever it is sent."""
        fields = cast("Mapping[str, datetime]", self.fields)
        begins = {name: fields[name].isoformat() for name in _SPANS_OF.values() if name in fields}
        return self.without(*_SPANS_OF) | begins


def read_query(query: Mapping[str, str], now: datetime) -> JobsQuery:
    """Reads the filters of an address; a wrong one is told, and none is applied then."""
    given = {name: query[name][:MOST_VALUE] for name in _WORDS if query.get(name, "").strip() != ""}
    try:
        fields = _make_fields(given, now)
        parse_filter(fields)
    except InvalidRequest as error:
        return JobsQuery(given, {}, error.message)
    return JobsQuery(given, fields)


def _make_fields(given: Mapping[str, str], now: datetime) -> FilterKeywords:
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name in _TIMES:
            fields[name] = parse_time(name, value)
        elif name not in _SPANS_OF:
            fields["text" if name == "q" else name] = value
    for name, begin in _SPANS_OF.items():
        if name in given:
            since = now - _parse_span(name, given[name])
            fields[begin] = max(since, fields.get(begin, since))
    return cast(FilterKeywords, fields)


def _parse_span(name: str, value: str) -> timedelta:
    if value not in SPANS:
        raise InvalidRequest(
            f"got {name}={value!r:.50}, expected one of {', '.join(SPANS)}", param=name
        )
    return timedelta(seconds=SPANS[value])


def parse_time(name: str, value: str) -> datetime:
    """Parses the time of a field, of UTC if it names no zone; raises InvalidRequest."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidRequest(
            f"got {name}={value!r:.100}, expected a time such as 2026-11-30T09:30:00Z", param=name
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def read_instant(text: str | None, now: datetime) -> datetime:
    """Returns the time of an address, or now for one that is none or yet to come."""
    try:
        found = datetime.fromisoformat(text) if text else now
    except ValueError:
        return now
    return min(now, found) if found.tzinfo else now


def read_search(text: str) -> dict[str, str]:
    """Reads the words of the search field: `tag:news worker:gpu-1 red car`, or the beginning of a job's id."""
    found: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        name = _SEARCHED.get(match[1])
        if name is None:
            return match[0]
        found[name] = match[2].strip('"')
        return " "

    rest = " ".join(_TOKEN.sub(take, text[:MOST_VALUE]).split())
    if _JOB_ID.fullmatch(rest):
        found["job_id"] = rest
    elif rest:
        found["q"] = rest[:200]
    return found


def list_options(query: JobsQuery) -> Iterator[tuple[str, str]]:
    """Yields the choices of the time of submission."""
    yield "", "any time"
    yield from (("1h", "the last hour"), ("24h", "the last day"), ("7d", "the last week"))
