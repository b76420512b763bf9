"""Reading from Redis: jobs, one or many, the lists of them, results and events.

Changes nothing; `ledger.py` has the transitions, `fleet_reader.py` reads what belongs to no single job.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from itertools import count, takewhile
from typing import Any, TypeVar, cast

from videoqa import errors
from videoqa.contract import (
    FINAL_STATES,
    DeadCount,
    DeadGroup,
    DeadGroups,
    Event,
    Failure,
    Job,
    JobCount,
    JobFilter,
    JobRequest,
    JobState,
    JobSummary,
    JobTimeline,
    Model,
    Result,
    Segment,
    describe_state,
    parse_stored,
    redact_request,
    to_datetime,
)
from videoqa.jobs.connection import execute_each, translate_redis_errors
from videoqa.jobs.event_stream import (
    FIRST_ID,
    EventsRead,
    find_before,
    includes_first,
    parse_first,
    parse_streams,
)
from videoqa.jobs.fleet_reader import FleetReader, parse_clock
from videoqa.jobs.list_cursor import ListCursor
from videoqa.jobs.selection import DEAD_CODES, JobSelection, ListedJobs, has_text
from videoqa.jobs.timeline import MOST_ATTEMPTS, make_timeline
from videoqa.local_stack import describe_address, is_stack_for
from videoqa.telemetry.trace_context import find_trace_id

__all__ = ["LedgerReader", "check_job_id"]

_M = TypeVar("_M", bound=Model)
_Record = dict[str, str | None]

LOOKED_AT = 1000
"""Records that one call of a script looks at, which takes Redis a few milliseconds."""
GROUPED = 2000
"""Newest failures of a code that are grouped by their messages."""

_JOB_FIELDS = (
    "state", "stage", "attempt", "max_attempts", "created_at", "started_at", "finished_at",
    "next_at", "worker", "failure", "result_url", "request", "tenant", "summary",
    "traceparent",
)  # fmt: skip
_UNREADABLE = (errors.InvalidRequest, ValueError, TypeError, OverflowError, OSError)
"""Errors of parsing a record: of JSON, of models and numbers, and of times that no calendar has."""


def check_job_id(job_id: str) -> None:
    """Raises JobNotFound for an id that is not ASCII: one with a lone surrogate could not even be sent.

    An id that is no text, such as None from a database, is an InvalidRequest.
    """
    if not isinstance(job_id, str):
        raise errors.InvalidRequest(f"got job id {job_id!r:.100}, expected text", param="job_id")
    if not job_id.isascii():
        raise errors.JobNotFound(f"no job {job_id!r} was ever recorded here; check the id")


class LedgerReader(FleetReader):
    """Reads the job records of one prefix in one Redis. Thread-safe.

    To the reader of a tenant, records of other tenants are not there: `_read_records` is the only way to
    a record, and the function `refuse` of `lua/records.lua` to a change of one.
    """

    def _run_on(self, job_id: str, script: str, *args: str) -> list[str]:
        """Runs a producer's script on one record, and raises the reason if it refuses that."""
        check_job_id(job_id)
        reply = cast("list[str]", self._run(script, job_id, self.tenant or "", *args))
        match reply[0]:
            case "unknown":
                raise self._explain_missing(job_id)
            case "unreadable":
                raise self._make_unreadable(
                    job_id, "its fields are none that a transition works with"
                )
        return reply

    def get(self, job_id: str, *, include_request: bool = False) -> Job:
        """Returns the job, with position and reason for waiting.

        Raises:
            JobNotFound, JobExpired, RecordUnreadable
        """
        job, _ = self._get(job_id, include_request=include_request)
        return self._explain_wait(job)

    def _get(
        self, job_id: str, also: Sequence[str] = (), *, include_request: bool = False
    ) -> tuple[Job, _Record]:
        """Returns the job, and its record with the fields named `also`."""
        check_job_id(job_id)
        (record,) = self._read_records([job_id], also)
        job = self._parse_job(job_id, record, include_request=include_request)
        if job is None or record is None:
            raise self._explain_missing(job_id)
        if isinstance(job, errors.RecordUnreadable):
            raise job
        return job, record

    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> list[Job | errors.RecordUnreadable | None]:
        """Returns jobs without position and reason for waiting, in one round trip.

        Each record stands for itself: None is an unknown or expired job, an error one that cannot be read.
        """
        records = self._read_records(job_ids)
        return [
            self._parse_job(job_id, record, include_request=include_request)
            for job_id, record in zip(job_ids, records, strict=True)
        ]

    def _read_records(
        self, job_ids: Sequence[str], also: Sequence[str] = ()
    ) -> list[_Record | None]:
        """Reads records in one round trip: None where this tenant has none, an empty one where the type is another."""
        fields = [*_JOB_FIELDS, *also]
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hmget(self.keys.job(job_id), fields)
            replies = execute_each(pipe)
        return [self._see_record(fields, values) for values in replies]

    def _see_record(
        self, fields: Sequence[str], values: Sequence[str | None] | Exception
    ) -> _Record | None:
        record: _Record = dict.fromkeys(fields)
        if not isinstance(values, Exception):
            if not any(values):
                return None
            record = dict(zip(fields, values, strict=True))
        return record if self.tenant in (None, record["tenant"]) else None

    def _parse_job(
        self, job_id: str, record: _Record | None, *, include_request: bool
    ) -> Job | errors.RecordUnreadable | None:
        if record is None:
            return None
        try:
            return _parse_job(job_id, record, include_request=include_request)
        except _UNREADABLE as error:
            return self._make_unreadable(job_id, error)

    def _make_unreadable(self, job_id: str, why: object) -> errors.RecordUnreadable:
        advice = "a newer release or another program wrote it: upgrade this side"
        reason = f"{str(why).removesuffix(f'; {advice}'):.300}"
        return errors.RecordUnreadable(
            f"record {self.keys.job(job_id)} cannot be read: {reason}; {advice}, or delete the key"
        )

    def skip_unreadable(
        self, job_ids: Sequence[str], found: Sequence[Job | errors.RecordUnreadable | None]
    ) -> list[Job | None]:
        """Returns None in the place of records that cannot be read, and warns of each of them once."""
        for job_id, job in zip(job_ids, found, strict=True):
            if isinstance(job, errors.RecordUnreadable):
                self._unreadable.warn(self.keys.job(job_id), job.message)
        return [None if isinstance(job, errors.RecordUnreadable) else job for job in found]

    def _parse(self, kind: type[_M], job_id: str, text: str) -> _M:
        """Parses JSON of a job's record; raises RecordUnreadable."""
        try:
            return parse_stored(kind, text)
        except errors.InvalidRequest as error:
            raise self._make_unreadable(job_id, error) from error

    def get_states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """Returns the states of jobs, in one round trip; None: unknown or expired."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hmget(self.keys.job(job_id), "state", "tenant")
            replies = execute_each(pipe)
        found = (("", None) if isinstance(reply, Exception) else reply for reply in replies)
        return [
            cast("JobState", state) if state and self.tenant in (None, tenant) else None
            for state, tenant in found
        ]

    def list_index(
        self, which: JobSelection, *, after: ListCursor | None, limit: int, most: int
    ) -> ListedJobs:
        """Returns up to `limit` positions of selected jobs behind `after`, after a look at up to `most`.

        The text of a filter is not looked at, which `filter_by_text` does.
        """
        place = (f"{after.at_s:.6f}", after.job_id) if after else ("", "")
        reply = self._run("select", which.to_json(self.tenant), *place, limit, most)
        looked_at, keys, gone, last, flat = reply
        found = [
            ListCursor(float(at_s), str(job_id))
            for job_id, at_s in zip(flat[::2], flat[1::2], strict=True)
        ]
        last_at = ListCursor(float(last[0]), str(last[1])) if last else None
        return ListedJobs(found, keys, gone, int(looked_at), last_at)

    def filter_by_text(self, job_ids: Sequence[str], text: str) -> set[str]:
        """Returns those of the ids whose requests have the text."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hget(self.keys.job(job_id), "request")
            replies = execute_each(pipe)
        return {
            job_id
            for job_id, reply in zip(job_ids, replies, strict=True)
            if isinstance(reply, str) and has_text(reply, text)
        }

    def count_index(self, which: JobSelection, *, most: int) -> JobCount:
        """Returns the number of selected jobs: exact where an index has it, else of the first `most`."""
        table, place = which.to_json(self.tenant), ("", "")
        count = looked_at = 0
        while True:
            kind, found, *rest = self._run("count", table, *place, min(most - looked_at, LOOKED_AT))
            if kind == "exact":
                return JobCount(count=int(found))
            count, looked_at = count + int(found), looked_at + int(rest[0])
            place = (str(rest[1]), str(rest[2]))
            if not place[1] or looked_at >= most:
                return JobCount(count=count, is_exact=not place[1], looked_at=looked_at)

    def count_dead(self) -> list[DeadCount]:
        """Returns the numbers of dead letters by code, the most frequent first; codes without any are left out."""
        hour, day = 3600, 86400
        rows = self._run("dead", self.tenant or "", hour, day, 7 * day, "", *DEAD_CODES)
        found = [
            DeadCount(code=code, hour=row[0], day=row[1], week=row[2], all=row[3])
            for code, row in zip(DEAD_CODES, rows, strict=True)
            if row[3]
        ]
        return sorted(found, key=lambda one: (-one.all, one.code))

    def group_dead(self, code: str, *, most: int = GROUPED) -> DeadGroups:
        """Returns the newest failures of a code by their groups, the largest first."""
        which = JobSelection(JobFilter(code=code))
        listed = self.list_index(which, after=None, limit=most, most=most)
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for at in listed.found:
                pipe.hmget(self.keys.job(at.job_id), "group", "failure")
            replies = execute_each(pipe)
        groups: dict[str, list[tuple[ListCursor, str]]] = {}
        for at, reply in zip(listed.found, replies, strict=True):
            if not isinstance(reply, Exception) and all(isinstance(one, str) for one in reply):
                groups.setdefault(reply[0], []).append((at, reply[1]))
        made = [self._make_group(code, name, rows) for name, rows in groups.items()]
        return DeadGroups(
            code=code,
            groups=tuple(sorted((one for one in made if one), key=lambda one: -one.count)),
            looked_at=len(listed.found),
            has_more=listed.last is not None,
        )

    def _make_group(
        self, code: str, name: str, rows: Sequence[tuple[ListCursor, str]]
    ) -> DeadGroup | None:
        """Returns a group of these failures, newest first; None if another program wrote them."""
        try:
            return DeadGroup(
                code=code,
                group=name,
                failure=parse_stored(Failure, rows[0][1]),
                count=len(rows),
                job_ids=tuple(at.job_id for at, _ in rows[:5]),
                first_at=to_datetime(rows[-1][0].at_s),
                last_at=to_datetime(rows[0][0].at_s),
            )
        except _UNREADABLE as error:
            self._unreadable.warn(self.keys.job(rows[0][0].job_id), error)
            return None

    def timeline(self, job_id: str) -> JobTimeline:
        """Returns the job with its attempts; raises as `get`."""
        job, record = self._get(job_id, ("rung_at", "stages"))
        numbers = range(max(1, job.attempt - MOST_ATTEMPTS), job.attempt + 1)
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            if numbers:
                pipe.hmget(self.keys.job(job_id), [f"attempt:{number}" for number in numbers])
            time, *noted = execute_each(pipe)
        texts = noted[0] if noted and not isinstance(noted[0], Exception) else [None] * len(numbers)
        return make_timeline(
            self._explain_wait(job),
            record,
            dict(zip(numbers, texts, strict=True)),
            now_s=parse_clock(time),
        )

    def _explain_wait(self, job: Job) -> Job:
        """Returns the job; if it is queued, with its position in its queue and the reason why it waits."""
        if job.state != "queued":
            return job
        position, why, detail = self._run("explain", job.id)
        found = {
            "position": position if position >= 0 else None,
            "waiting_for": self._describe_wait(why, detail, job.model),
        }
        return job.model_copy(update=found)

    def _describe_wait(self, why: str, detail: str, model: str | None) -> str | None:
        """Returns the reason as a sentence's end; None: the job began meanwhile."""
        reasons = {
            "delay": "the delay before its next attempt",
            "leader": f"{f'job {detail}' if detail else 'a job'}, which asks the same",
            "paused": "its queue is paused",
            "loading": "its workers are still loading the model",
            "draining": "another worker: those that there are shut down",
            "broken": "another worker: the engines of those that there are have stopped",
            "exclusive": "a worker in which nothing else runs: its last attempt runs by itself",
            "tenant": f"a running job of its tenant to end; at most {detail} run at once",
            "slots": "a free worker",
        }
        return self._explain_absence(model) if why == "unserved" else reasons.get(why)

    def _explain_absence(self, model: str | None) -> str:
        if is_stack_for(self._url, model):
            return "the worker of `videoqa up`, which is starting"
        return f"no running worker serves {f'model {model}' if model else 'any model'}"

    def result(self, job_id: str) -> tuple[Job, Result | None]:
        """Returns the job, and its result if the record holds it."""
        job, record = self._get(job_id, ["result"])
        text = record["result"]
        return job, self._parse(Result, job_id, text) if text else None

    def segments(self, job_id: str, fingerprint: str) -> list[Segment]:
        """Returns the segments that earlier attempts answered, from the first on without a gap.

        They end before one that this release cannot parse. There are none if the stored fingerprint,
        which stands for the video and the questions, is another one.
        """
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self.keys.segments(job_id))
            (found,) = execute_each(pipe)
        if isinstance(found, Exception) or found.get("of") != fingerprint:
            return []
        texts = takewhile(bool, (found.get(str(number)) for number in count()))
        segments: list[Segment] = []
        with suppress(errors.InvalidRequest):
            for text in texts:
                segments.append(parse_stored(Segment, text or ""))
        return segments

    def request(self, job_id: str) -> JobRequest:
        """Returns the job's request; raises JobNotFound, JobExpired or RecordUnreadable."""
        (record,) = self._read_records([job_id])
        if record is None:
            raise self._explain_missing(job_id)
        return self._parse(JobRequest, job_id, record["request"] or "")

    def read_events(self, job_id: str, *, after: str = "0") -> list[Event]:
        """Returns the events after the id `after`."""
        (found,) = self.read_events_many([(job_id, after)])
        if isinstance(found, Exception):
            raise found
        return found

    def read_events_many(self, reads: Sequence[tuple[str, str]]) -> list[list[Event] | Exception]:
        """Returns the events after an id of each of many jobs, or its error, in one round trip."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for job_id, after in reads:
                if includes_first(after):
                    pipe.hget(self.keys.job(job_id), "created_at")
                pipe.xread({self.keys.events(job_id): after})
            replies = iter(execute_each(pipe))
        found: list[list[Event] | Exception] = []
        for job_id, after in reads:
            key = self.keys.events(job_id)
            created_at = next(replies) if includes_first(after) else None
            reply = next(replies)
            bad = [one for one in (created_at, reply) if isinstance(one, Exception)]
            if bad:
                found.append(self._translate(bad[0]))
                continue
            news = parse_streams(reply).get(key, EventsRead())
            self.warn_of_entries(key, news.unreadable)
            found.append(parse_first(created_at) + news.events)
        return found

    def has_event(self, job_id: str, event_id: str) -> bool:
        """Tells if the job's stream has this event still, so that all events after it can be read.

        The first event is in no stream; it counts as there as long as the second one is.
        """
        before = find_before(event_id)
        if before is None:
            return False
        key = self.keys.events(job_id)
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.xread({key: "0" if event_id == FIRST_ID else before}, count=1)
            (reply,) = execute_each(pipe)
        if isinstance(reply, Exception):
            raise self._translate(reply)
        found = parse_streams(reply).get(key, EventsRead())
        if event_id != FIRST_ID:
            return found.last_id == event_id
        return found.last_id is None or any(
            event.type == "state" and event.attempt <= 1 for event in found.events
        )

    def check_streams(self, keys: Sequence[str]) -> list[Exception | None]:
        """Returns the error with which reading each of these streams fails, or None."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for key in keys:
                pipe.xread({key: "$"})
            replies = execute_each(pipe)
        return [
            self._translate(reply) if isinstance(reply, Exception) else None for reply in replies
        ]

    def warn_of_entries(self, key: str, event_ids: Sequence[str]) -> None:
        """Warns once of each entry of a stream that is no event."""
        for event_id in event_ids:
            self._unreadable.warn(f"{key} {event_id}", "it is no event")

    def unblock(self, connection_id: int) -> bool:
        """Ends the blocking read of a connection as if its time were over; False: it did not block."""
        with translate_redis_errors(self._url):
            return bool(self._redis.client_unblock(connection_id))

    def translate_errors(self) -> AbstractContextManager[None]:
        """Encloses a read on another connection to this Redis."""
        return translate_redis_errors(self._url)

    def _translate(self, error: Exception) -> Exception:
        try:
            with translate_redis_errors(self._url):
                raise error
        except Exception as translated:  # noqa: BLE001 - its caller raises it
            return translated

    def _explain_missing(self, job_id: str) -> errors.LookupFailed:
        with translate_redis_errors(self._url):
            found = cast("str | None", self._redis.get(self.keys.final_state(job_id)))
        state, _, tenant = (found or "").partition(":")
        if state and self.tenant in (None, tenant):
            return errors.JobExpired(
                f"job {job_id} {describe_state(state)}, and its record is gone (result_ttl_s is over, or "
                "it was purged); its result object, if it had one, is still in storage"
            )
        return errors.JobNotFound(
            f"no job {job_id} was ever recorded in {describe_address(self._url)}, with the prefix "
            f"{self.keys.prefix}; check the id"
        )


def _parse_time(text: str | None) -> Any:
    return to_datetime(float(text)) if text else None


def _parse_job(job_id: str, record: dict[str, Any], *, include_request: bool) -> Job:
    """Returns the job of a record, without position and reason for waiting, which are not in it."""
    request = parse_stored(JobRequest, record["request"])
    finished_at = _parse_time(record["finished_at"])
    is_final = record["state"] in FINAL_STATES and finished_at is not None
    return Job(
        id=job_id,
        state=record["state"],
        stage=record["stage"] or None,
        attempt=int(record["attempt"]),
        max_attempts=int(record["max_attempts"]),
        created_at=_parse_time(record["created_at"]),
        started_at=_parse_time(record["started_at"]),
        finished_at=finished_at,
        expires_at=finished_at + timedelta(seconds=request.result_ttl_s) if is_final else None,
        next_attempt_at=_parse_time(record["next_at"]),
        model=request.model,
        priority=request.priority,
        tenant=request.tenant,
        worker=record["worker"],
        failure=parse_stored(Failure, record["failure"]) if record["failure"] else None,
        result_url=record["result_url"],
        custom_id=request.custom_id,
        tags=request.tags,
        metadata=request.metadata,
        summary=parse_stored(JobSummary, record["summary"]) if record["summary"] else None,
        trace_id=find_trace_id(job_id, record["traceparent"]),
        request=redact_request(request) if include_request else None,
    )
