"""RunLog: the runs of archives that announce themselves, in Redis, each for 30 days after its last word."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast, get_args

from videoqa.contract import (
    ArchiveRun,
    FailedRow,
    RunPage,
    RunReport,
    RunState,
    make_failed_row,
    redact_url,
)
from videoqa.errors import InvalidRequest, RunNotFound
from videoqa.jobs.connection import execute_each, translate_redis_errors
from videoqa.jobs.keys import quote_tenant
from videoqa.jobs.scripts import ScriptCaller
from videoqa.redaction import redact_text

__all__ = ["SILENT_S", "RunLog"]

KEPT_S = 30 * 86_400
"""Time after its last word for which a run is kept."""
SILENT_S = 60.0
"""Time without a word after which a running run counts as interrupted; one speaks every 15 s at least."""
MOST_OF_TENANT, MOST_RUNS = 500, 2000
"""Most runs that are kept of one tenant, and of all; those that were started first leave."""
MOST_LISTED = 200
"""Most runs of a page."""
MOST_TEXT = 200
"""Most characters of the text that runs are searched for."""
_TIMES = ("first_at", "started_at", "seen_at", "ended_at")
_ID = re.compile(r"(run|batch)_[0-9A-Za-z]{24}")
_CURSOR = re.compile(r"(\d{1,12}\.\d{6})-((?:run|batch)_[0-9A-Za-z]{24})")


class _Place(NamedTuple):
    """A run's place in a list."""

    at_s: float
    run_id: str


class RunLog(ScriptCaller):
    """The runs of one prefix, or of one tenant in it. Thread-safe."""

    def announce(self, report: RunReport, *, begins: bool) -> None:
        """Records the words of a run.

        Arguments:
            begins: it was started just now, perhaps once more.

        Raises:
            RunNotFound: another tenant has a run with this id.
        """
        safe = _redact(report, self.tenant)
        examples = {each.code: _dump_rows(each.examples) for each in safe.failures}
        plain = tuple(each.model_copy(update={"examples": ()}) for each in safe.failures)
        info = safe.model_copy(update={"failures": plain}).model_dump_json(exclude_defaults=True)
        reply = self._run(
            "note_run",
            safe.id,
            safe.tenant or "",
            safe.state,
            info,
            json.dumps(examples),
            int(begins) or "",
            KEPT_S,
            MOST_RUNS,
            MOST_OF_TENANT,
            quote_tenant(safe.tenant or ""),
        )
        if reply != "ok":
            raise _make_unknown(report.id)

    def find(self, run_id: str) -> ArchiveRun:
        """Returns a run, with examples of its failures; raises RunNotFound."""
        found = self._read([run_id], "examples")[0] if _ID.fullmatch(run_id) else None
        if found is None:
            raise _make_unknown(run_id)
        return found

    def list_page(
        self, *, state: RunState | None, text: str | None, cursor: str | None, limit: int
    ) -> RunPage:
        """Returns a page of the runs, the last start in front.

        Raises:
            InvalidRequest: an argument is wrong.
        """
        _check_filter(state, text, limit)
        after = _parse_cursor(cursor) if cursor is not None else None
        found: list[tuple[_Place, ArchiveRun]] = []
        places = self._list_places()
        for start in range(0, len(places), MOST_LISTED):
            chunk = [
                at for at in places[start : start + MOST_LISTED] if after is None or at < after
            ]
            runs = self._read([at.run_id for at in chunk]) if chunk else []
            for at, run in zip(chunk, runs, strict=True):
                if run is None or not _matches(run, state, text):
                    continue
                if len(found) == limit:
                    last = found[-1][0]
                    cursor = f"{last.at_s:.6f}-{last.run_id}"
                    return RunPage(runs=tuple(run for _, run in found), next_cursor=cursor)
                found.append((at, run))
        return RunPage(runs=tuple(run for _, run in found))

    def _list_places(self) -> list[_Place]:
        """Lists all runs, the last start in front: there are 2,000 at most."""
        key = self.keys.runs(self.tenant)
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrevrange(key, 0, MOST_RUNS - 1, withscores=True)
            (found,) = execute_each(pipe)
        if isinstance(found, Exception):  # another type, which the next word of a run replaces
            return []
        places = (_Place(float(at_s), str(run_id)) for run_id, at_s in cast("list[Any]", found))
        return [at for at in places if _ID.fullmatch(at.run_id) and 0 < at.at_s < 1e12]

    def _read(self, run_ids: Sequence[str], *also: str) -> list[ArchiveRun | None]:
        """Returns runs by their ids; None: it is gone, unreadable, or another tenant's."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            for run_id in run_ids:
                pipe.hmget(self.keys.run(run_id), "tenant", "info", "starts", *_TIMES, *also)
            clock, *replies = execute_each(pipe)
        if isinstance(clock, Exception):
            raise clock
        now_s = clock[0] + clock[1] / 1e6
        return [
            self._parse_run(run_id, reply, now_s)
            for run_id, reply in zip(run_ids, replies, strict=True)
        ]

    def _parse_run(self, run_id: str, reply: Any, now_s: float) -> ArchiveRun | None:
        try:
            if isinstance(reply, Exception):
                raise ValueError(str(reply))
            tenant, info, starts, *rest = reply
            if info is None or self.tenant not in (None, tenant):
                return None
            times = dict(zip(_TIMES, (float(at) if at else None for at in rest), strict=False))
            fields = json.loads(info) | times | {"id": run_id, "starts": starts}
            run = ArchiveRun.model_validate(fields, extra="ignore")
            if run.state == "running" and now_s - (times["seen_at"] or 0) > SILENT_S:
                run = run.model_copy(update={"state": "interrupted"})
            return _add_examples(run, rest[len(_TIMES)]) if len(rest) > len(_TIMES) else run
        except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError) as error:
            self._unreadable.warn(self.keys.run(run_id), error)
            return None


def _redact(report: RunReport, tenant: str | None) -> RunReport:
    """Takes what opens a door out of a report, and gives it the tenant of its announcer."""
    failures = tuple(
        each.model_copy(
            update={
                "examples": tuple(
                    make_failed_row(row.row, row.message, row.job_id) for row in each.examples
                )
            }
        )
        for each in report.failures
    )
    return report.model_copy(
        update={
            "name": redact_text(report.name),
            "output": redact_url(report.output) if report.output else None,
            "message": redact_text(report.message) if report.message else None,
            "tenant": tenant if tenant is not None else report.tenant,
            "failures": failures,
        }
    )


def _dump_rows(rows: Sequence[FailedRow]) -> list[dict[str, Any]]:
    return [row.model_dump(exclude_defaults=True) for row in rows]


def _add_examples(run: ArchiveRun, text: str | None) -> ArchiveRun:
    """Returns the run with the rows that it named; without them if somebody broke the text."""
    found = json.loads(text) if text else {}
    rows = {
        code: tuple(FailedRow.model_validate(row, extra="ignore") for row in examples)
        for code, examples in found.items()
    }
    failures = tuple(
        each.model_copy(update={"examples": rows.get(each.code, ())}) for each in run.failures
    )
    return run.model_copy(update={"failures": failures})


def _matches(run: ArchiveRun, state: RunState | None, text: str | None) -> bool:
    if state is not None and run.state != state:
        return False
    fields = (run.id, run.name, run.output, run.tenant, run.who, run.host)
    return text is None or any(text.casefold() in (each or "").casefold() for each in fields)


def _check_filter(state: str | None, text: str | None, limit: int) -> None:
    if not 1 <= limit <= MOST_LISTED:
        raise InvalidRequest(f"got limit={limit}, expected 1 to {MOST_LISTED}", param="limit")
    if state is not None and state not in get_args(RunState):
        raise InvalidRequest(
            f"got state {state!r:.80}, expected one of {', '.join(get_args(RunState))}",
            param="state",
        )
    if text is not None and not 1 <= len(text) <= MOST_TEXT:
        raise InvalidRequest(
            f"got a text of {len(text)} characters, expected 1 to {MOST_TEXT}", param="text"
        )


def _parse_cursor(text: str) -> _Place:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"got cursor={text!r:.120}, expected the `next_cursor` of a page", param="cursor"
        )
    return _Place(float(match[1]), match[2])


def _make_unknown(run_id: str) -> RunNotFound:
    return RunNotFound(
        f"there is no run {run_id!r:.120}; `Client.runs()` lists all that are kept, each for 30 days after its last "
        "word"
    )
