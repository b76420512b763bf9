"""HttpBackend: the jobs that a gateway reaches for one API key."""

from __future__ import annotations

import builtins
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Self, TypeVar, get_args
from urllib.parse import quote

from pydantic import ValidationError

from videoqa import errors
from videoqa.backends.backend import QueueId, Submitted, naming_request
from videoqa.backends.http.address import GatewayAddress
from videoqa.backends.http.connection import GatewayConnection
from videoqa.backends.http.follower import Follower
from videoqa.backends.http.problems import check_problem, make_error
from videoqa.contract import (
    ArchiveRun,
    BulkAction,
    BulkKind,
    BulkPreview,
    DeadCount,
    DeadGroups,
    Event,
    Job,
    JobCount,
    JobFilter,
    JobPage,
    JobRequest,
    JobState,
    JobTimeline,
    Model,
    QueueInfo,
    Result,
    RunPage,
    RunReport,
    RunState,
    Stats,
    StatsSpan,
    UsageBy,
    UsageRow,
    WorkerInfo,
)
from videoqa.jobs import AnyFuture, EventCursor, check_job_id

__all__ = ["HttpBackend"]

F = TypeVar("F", bound=AnyFuture)
M = TypeVar("M", bound=Model)

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_ROW = re.compile(r"^jobs\.[0-9]{1,9}\.?")
_PAGE = 1000
MOST_BODY_BYTES = 4_000_000
"""Bytes of one request with many rows; a gateway takes twice as many."""


class HttpBackend:
    """The jobs behind a gateway."""

    sets_output = False

    def __init__(self, address: GatewayAddress) -> None:
        self.connection = GatewayConnection(address)
        self.follower = Follower(self.connection)

    def for_tenant(self, tenant: str | None) -> Self:
        if tenant is not None:
            raise errors.OperatorOnly(
                f"got tenant {tenant!r:.150}, expected none: of a gateway the API key decides the tenant; use a key of "
                "that tenant, and leave VIDEOQA_TENANT unset"
            )
        return self

    def close(self) -> None:
        self.follower.close()
        self.connection.close()

    # -- submits

    def submit(self, request: JobRequest) -> Job:
        return self._parse(Job, self._post("/v1/jobs", _make_body(request)))

    def submit_many(
        self, requests: Sequence[JobRequest], *, first: int
    ) -> builtins.list[Submitted]:
        found: list[Submitted] = []
        bodies = []
        for number, request in enumerate(requests, first):
            with naming_request(number):
                bodies.append(_make_body(request))
        for rows in _split_by_bytes(bodies):
            try:
                answer = self._post("/v1/jobs:batch", {"jobs": rows})
                found += map(self._parse_submitted, self._take_rows(answer, "jobs", len(rows)))
            except errors.VideoQAError as error:
                if not found:
                    raise
                found += [Submitted(error=error)] * len(rows)
        return found

    def _parse_submitted(self, row: Any) -> Submitted:
        if isinstance(row, dict) and "job" in row:
            return Submitted(job=self._parse(Job, row["job"]))
        error = row.get("error") if isinstance(row, dict) else None
        found = make_error(check_problem(error), status=400, where=self._shown)
        found.param = _ROW.sub("", found.param or "") or None
        return Submitted(error=found)

    # -- reads

    def get(self, job_id: str, *, include_request: bool = False) -> Job:
        job = self._parse(Job, self._call("GET", _path(job_id)))
        return job if include_request else job.model_copy(update={"request": None})

    def get_now(self, job_id: str) -> Job:
        return self.get(job_id)

    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> builtins.list[Job | None]:
        plain = _list_plain(job_ids)
        if not plain:
            return [None] * len(job_ids)
        body = {"ids": plain, "include_request": include_request}
        rows = self._take_rows(self._post("/v1/jobs:get", body), "jobs", len(plain))
        jobs = {
            job_id: None if row is None else self._parse(Job, row)
            for job_id, row in zip(plain, rows, strict=True)
        }
        return [jobs.get(job_id) for job_id in job_ids]

    def get_states(self, job_ids: Sequence[str]) -> builtins.list[JobState | None]:
        plain = _list_plain(job_ids)
        if not plain:
            return [None] * len(job_ids)
        rows = self._take_rows(self._post("/v1/jobs:states", {"ids": plain}), "states", len(plain))
        states = dict(zip(plain, rows, strict=True))
        return [
            state if state in get_args(JobState) else None for state in map(states.get, job_ids)
        ]

    def list_page(
        self, which: JobFilter, *, cursor: str | None, limit: int, include_request: bool
    ) -> JobPage:
        query: dict[str, str | int | None] = {
            **_make_query(which),
            "cursor": cursor,
            "limit": limit,
            "include_request": "true" if include_request else None,
        }
        return self._parse(JobPage, self._get("/v1/jobs", query))

    def count(self, which: JobFilter) -> JobCount:
        return self._parse(JobCount, self._get("/v1/jobs/count", _make_query(which)))

    def count_dead(self, tenant: str | None) -> builtins.list[DeadCount]:
        found = self._get("/v1/dead-letters", {"tenant": tenant})
        return [self._parse(DeadCount, row) for row in self._take_rows(found, "codes")]

    def group_dead(self, code: str, tenant: str | None) -> DeadGroups:
        query = {"code": code, "tenant": tenant}
        return self._parse(DeadGroups, self._get("/v1/dead-letters/groups", query))

    def list_dead(self) -> Iterator[str]:
        """Yields the ids of failed jobs; all are read first, since a gateway lists the newest in front."""
        found: list[str] = []
        cursor = None
        while True:
            page = self.list_page(
                JobFilter(state="failed"), cursor=cursor, limit=_PAGE, include_request=False
            )
            found += [job.id for job in page.jobs]
            cursor = page.next_cursor
            if cursor is None:
                return reversed(found)

    def result(self, job_id: str) -> Result:
        return self._parse(Result, self._call("GET", f"{_path(job_id)}/result"))

    def sheet(self, job_id: str, *, thumbnail: bool) -> bytes:
        return self.connection.fetch(f"{_path(job_id)}/sheet{'?thumbnail=true' * thumbnail}")

    # -- changes

    def cancel(self, job_id: str) -> Job:
        return self._parse_job(self._call("POST", f"{_path(job_id)}/cancel"))

    def retry(self, job_id: str) -> Job:
        found = self.connection.call(
            "POST", f"{_path(job_id)}/retry", done_if=(errors.NotRetryable,)
        )
        return self.get(job_id) if found is None else self._parse_job(found)

    def purge(self, job_id: str) -> None:
        gone = (errors.JobExpired, errors.JobNotFound)
        self.connection.call("DELETE", _path(job_id), done_if=gone)

    def _parse_job(self, found: Any) -> Job:
        return self._parse(Job, found).model_copy(update={"request": None})

    # -- bulk actions

    def preview_bulk(
        self, action: BulkKind, which: JobFilter, cut_off: datetime | None
    ) -> BulkPreview:
        body = _make_bulk_body(action, which, cut_off) | {"dry_run": True}
        return self._parse(BulkPreview, self._post("/v1/bulk-actions", body))

    def start_bulk(
        self,
        action: BulkKind,
        which: JobFilter,
        *,
        expected: int | None,
        cut_off: datetime | None,
        key: str | None,
    ) -> BulkAction:
        body = _make_bulk_body(action, which, cut_off)
        if expected is not None:
            body["expected"] = expected
        body["idempotency_key"] = key or f"call-{secrets.token_hex(16)}"
        return self._parse(BulkAction, self._post("/v1/bulk-actions", body))

    def get_bulk(self, bulk_id: str) -> BulkAction:
        return self._parse(BulkAction, self._call("GET", _bulk_path(bulk_id)))

    def list_bulk(self, limit: int) -> builtins.list[BulkAction]:
        found = self._get("/v1/bulk-actions", {"limit": limit})
        return [self._parse(BulkAction, row) for row in self._take_rows(found, "actions")]

    def stop_bulk(self, bulk_id: str) -> BulkAction:
        return self._parse(BulkAction, self._call("POST", f"{_bulk_path(bulk_id)}/stop"))

    def advance_bulk(self, bulk_id: str, holder: str) -> BulkAction:
        return self.get_bulk(bulk_id)

    # -- the fleet

    def queues(self) -> builtins.list[QueueInfo]:
        rows = self._take_rows(self._call("GET", "/v1/queues"), "queues")
        return [self._parse(QueueInfo, row) for row in rows]

    def pause(self, queues: Sequence[QueueId]) -> None:
        self._change_queues("/v1/queues:pause", queues)

    def resume(self, queues: Sequence[QueueId]) -> None:
        self._change_queues("/v1/queues:resume", queues)

    def _change_queues(self, path: str, queues: Sequence[QueueId]) -> None:
        for queue in queues:
            self._post(path, {"model": queue.model, "priority": queue.priority})

    def usage(
        self, first_day: date, last_day: date, *, by: UsageBy, tenant: str | None
    ) -> builtins.list[UsageRow]:
        query = {"from": first_day.isoformat(), "to": last_day.isoformat(), "by": by}
        if tenant is not None:
            query["tenant"] = tenant
        found = self.connection.call("GET", "/v1/usage", query=query)
        return [self._parse(UsageRow, row) for row in self._take_rows(found, "usage")]

    def workers(self) -> builtins.list[WorkerInfo]:
        rows = self._take_rows(self._call("GET", "/v1/workers"), "workers")
        return [self._parse(WorkerInfo, row) for row in rows]

    def stats(self, span: StatsSpan, *, model: str | None) -> Stats:
        query = {"span": span} | ({} if model is None else {"model": model})
        return self._parse(Stats, self.connection.call("GET", "/v1/stats", query=query))

    def timeline(self, job_id: str) -> JobTimeline:
        return self._parse(JobTimeline, self._call("GET", f"{_path(job_id)}/timeline"))

    # -- runs of archives

    def announce_run(self, report: RunReport, *, begins: bool) -> None:
        """Announces a run; the API key decides its tenant and stands for who runs it."""
        body = report.model_dump(mode="json", exclude_defaults=True, exclude={"tenant", "who"})
        self._post("/v1/runs", {**body, "begins": begins})

    def runs(
        self, *, state: RunState | None, text: str | None, cursor: str | None, limit: int
    ) -> RunPage:
        query = {"state": state, "q": text, "cursor": cursor, "limit": limit}
        found = self.connection.call(
            "GET",
            "/v1/runs",
            query={name: value for name, value in query.items() if value is not None},
        )
        return self._parse(RunPage, found)

    def get_run(self, run_id: str) -> ArchiveRun:
        if not _PLAIN_ID.fullmatch(run_id):
            raise errors.RunNotFound(
                f"there is no run {run_id!r:.120}; `Client.runs()` lists all that are kept"
            )
        return self._parse(ArchiveRun, self._call("GET", f"/v1/runs/{quote(run_id, safe='')}"))

    def list_models(self) -> builtins.list[str]:
        """Returns the models that ready workers serve."""
        rows = self._take_rows(self._call("GET", "/v1/models"), "data")
        return [str(row.get("id")) for row in rows if isinstance(row, dict)]

    def ping(self) -> str:
        self._call("GET", "/readyz")
        return f"the gateway at {self._shown}"

    # -- waiting

    def ask_job(self, job_id: str, future: F) -> F:
        check_job_id(job_id)
        return self.follower.ask(self.get_many, job_id, future)

    def ask_state(self, job_id: str, future: F) -> F:
        return self.follower.ask(self.get_states, job_id, future)

    def ask_events(self, cursor: EventCursor, future: F) -> F:
        if cursor.block_s:
            return self.follower.read(cursor.job_id, after=cursor.after, future=future)
        return self.follower.ask(self._read_events, (cursor.job_id, cursor.after), future)

    def _read_events(
        self, reads: Sequence[tuple[str, str]]
    ) -> builtins.list[builtins.list[Event] | Exception]:
        """Returns the events so far after an id of each of many jobs, or its error."""
        body = {"jobs": [{"id": job_id, "after": after} for job_id, after in reads]}
        rows = self._take_rows(self._post("/v1/jobs:events", body), "jobs", len(reads))
        return [
            [self._parse(Event, event) for event in row.get("events") or ()]
            if "error" not in row
            else make_error(check_problem(row["error"]), status=500, where=self._shown)
            for row in rows
            if isinstance(row, dict)
        ]

    # -- requests

    @property
    def _shown(self) -> str:
        return self.connection.address.shown

    def _call(self, method: str, path: str) -> Any:
        return self.connection.call(method, path)

    def _get(self, path: str, query: Mapping[str, str | int | None]) -> Any:
        kept = {name: value for name, value in query.items() if value is not None}
        return self.connection.call("GET", path, query=kept)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self.connection.call("POST", path, body=body)

    def _take_rows(self, found: Any, name: str, count: int | None = None) -> builtins.list[Any]:
        rows = found.get(name) if isinstance(found, dict) else None
        if not isinstance(rows, list) or count not in (None, len(rows)):
            raise self._refuse(f"no list {name!r} of the right length")
        return rows

    def _parse(self, kind: type[M], found: Any) -> M:
        """Parses what a gateway, perhaps of a newer release, answered."""
        try:
            return kind.model_validate(found, extra="ignore")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, (kind.__name__, *first["loc"])))
            raise self._refuse(f"{where:.120}: {first['msg']:.200}") from error

    def _refuse(self, why: str) -> errors.GatewayError:
        return errors.GatewayError(
            f"{self._shown} answered with what this release does not understand, {why}; upgrade this side, or check "
            "that VIDEOQA_URL is the address of a videoqa gateway"
        )


def _make_body(request: JobRequest) -> dict[str, Any]:
    """Returns a request's JSON, with an idempotency key: a request that is sent again makes no second job.

    Raises:
        InvalidRequest: it names what a gateway's key decides.
    """
    for name in ("tenant", "output"):
        if getattr(request, name) is not None:
            raise errors.InvalidRequest(
                f"{name}: got a value, expected none: of a gateway the API key decides it",
                param=name,
            )
    body: dict[str, Any] = json.loads(request.model_dump_json(exclude_defaults=True))
    body.setdefault("idempotency_key", f"call-{secrets.token_hex(16)}")
    return body


def _split_by_bytes(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Splits rows into bodies that a gateway takes."""
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        length = len(json.dumps(row))
        if part and size + length > MOST_BODY_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part


def _list_plain(job_ids: Sequence[str]) -> list[str]:
    """Lists the ids that a job may have, each once; another one is unknown, and need not be sent."""
    return list(dict.fromkeys(job_id for job_id in job_ids if _PLAIN_ID.fullmatch(job_id)))


def _path(job_id: str) -> str:
    """Returns a job's path; raises JobNotFound for an id that no job has."""
    check_job_id(job_id)
    if not _PLAIN_ID.fullmatch(job_id):
        raise errors.JobNotFound(f"no job {job_id!r:.200} was ever recorded here; check the id")
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _bulk_path(bulk_id: str) -> str:
    if not isinstance(bulk_id, str) or not _PLAIN_ID.fullmatch(bulk_id):
        raise errors.BulkActionNotFound(
            f"no bulk action {bulk_id!r:.100} is known here; check the id"
        )
    return f"/v1/bulk-actions/{quote(bulk_id, safe='')}"


def _make_bulk_body(action: BulkKind, which: JobFilter, cut_off: datetime | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "action": action,
        "filter": which.model_dump(mode="json", exclude_none=True),
    }
    return body if cut_off is None else body | {"cut_off": cut_off.isoformat()}


def _make_query(which: JobFilter) -> dict[str, str | int | None]:
    """Returns the parameters of a filter; a text is `q`, as in search boxes."""
    fields = which.model_dump(mode="json", exclude_none=True)
    return {{"text": "q"}.get(name, name): value for name, value in fields.items()}
