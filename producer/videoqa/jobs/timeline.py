"""Timeline of a job: its attempts, of its record and of what the record notes of earlier ones. Does no I/O."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise

from videoqa import errors
from videoqa.contract import (
    Attempt,
    AttemptOutcome,
    Failure,
    Job,
    JobTimeline,
    Model,
    parse_stored,
    to_datetime,
)
from videoqa.errors import Stage

__all__ = ["MOST_ATTEMPTS", "make_timeline"]

MOST_ATTEMPTS = 30
"""Ended attempts that a record notes, besides the last one."""
_STAGE = re.compile(r"([a-z]{1,20})([@=])([0-9.]{1,20})")
_OUTCOMES: dict[str, AttemptOutcome] = {
    "running": "running",
    "canceling": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "canceled",
}


class _Note(Model):
    """An attempt as the record has it: times as text of seconds, the failure as JSON."""

    outcome: AttemptOutcome
    worker: str | None = None
    queued_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    failure: str | None = None
    stages: str | None = None
    """Begins of stages and seconds of stages; see `add_stage` of `lua/records.lua`."""


def make_timeline(
    job: Job, record: Mapping[str, str | None], noted: Mapping[int, str | None], *, now_s: float
) -> JobTimeline:
    """Makes the timeline; an attempt whose note is missing or unreadable is left out.

    Arguments:
        record: fields of the record, `rung_at` and `stages` included.
        noted: notes of the record about attempts, as JSON, by number.
    """
    attempts = []
    for number, text in noted.items():
        note = _parse_note(text)
        if note is None and number == job.attempt and job.state in _OUTCOMES:
            note = _Note(
                outcome=_OUTCOMES[job.state],
                worker=job.worker,
                queued_at=record.get("rung_at") or record.get("created_at"),
                started_at=record.get("started_at"),
                ended_at=record.get("finished_at"),
                failure=record.get("failure") if job.final else None,
                stages=record.get("stages"),
            )
        if note is not None and _parse_number(note.started_at) is not None:
            attempts.append(_make_attempt(number, note, now_s))
    return JobTimeline(job=job, at=to_datetime(now_s), attempts=tuple(attempts))


def _parse_note(text: str | None) -> _Note | None:
    try:
        return parse_stored(_Note, text) if text else None
    except errors.InvalidRequest:
        return None


def _make_attempt(number: int, note: _Note, now_s: float) -> Attempt:
    queued, started, ended = map(_parse_number, (note.queued_at, note.started_at, note.ended_at))
    failure = _parse_failure(note.failure)
    kind = errors.REGISTRY.get(failure.code) if failure else None
    return Attempt(
        number=number,
        outcome=note.outcome,
        worker=note.worker or None,
        queued_at=_to_time(queued),
        started_at=_to_time(started),
        ended_at=_to_time(ended),
        queued_s=_subtract(started, queued),
        running_s=_subtract(now_s if ended is None else ended, started),
        stages=_parse_stages(note.stages or "", now_s if ended is None else ended),
        failure=failure,
        meaning=(kind.__doc__ or "").partition("\n")[0] if kind else None,
        next_step=kind.next_step or None if kind else None,
    )


def _parse_stages(text: str, until_s: float) -> dict[Stage, float]:
    """Returns seconds by stage; the last one goes until `until_s`."""
    found: dict[str, float] = defaultdict(float)
    entered = []
    for name, kind, number in _STAGE.findall(text):
        seconds = _parse_number(number) or 0.0
        if kind == "=":
            found[name] += seconds
        else:
            entered.append((name, seconds))
    for (name, at), (_, end) in pairwise([*entered, ("", until_s)]):
        found[name] += max(0.0, end - at)
    return {name: round(found[name], 4) for name in errors.STAGES if name in found}


def _parse_failure(text: str | None) -> Failure | None:
    try:
        return parse_stored(Failure, text) if text else None
    except errors.InvalidRequest:
        return None


def _parse_number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e11 else None


def _to_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else to_datetime(seconds)


def _subtract(later: float | None, earlier: float | None) -> float | None:
    if later is None or earlier is None:
        return None
    return round(max(0.0, later - earlier), 4)
