"""Reading from Redis: jobs, one or many, the index, results, events, queues and workers.

Changes nothing; `ledger.py` has the transitions.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from importlib.resources import files
from itertools import count, islice, takewhile
from typing import Any, Self, TypeVar, cast

import redis

from videoqa import errors
from videoqa.contract import (
    FINAL_STATES,
    Event,
    Failure,
    Job,
    JobRequest,
    JobState,
    Model,
    QueueInfo,
    Result,
    Segment,
    WorkerInfo,
    describe_state,
    parse_stored,
    redact_request,
    to_datetime,
)
from videoqa.jobs.connection import translate_redis_errors
from videoqa.jobs.event_stream import EventsRead, includes_first, parse_first, parse_streams
from videoqa.jobs.job_filter import JobFilter, ListedJobs
from videoqa.jobs.keys import Keys, parse_queue_name, queue_name
from videoqa.jobs.list_cursor import ListCursor
from videoqa.jobs.replication import ReplicaWait
from videoqa.jobs.unreadable import UnreadableLog
from videoqa.local_stack import describe_address, is_stack_for

__all__ = ["LedgerReader", "check_job_id"]

_M = TypeVar("_M", bound=Model)
_Record = dict[str, str | None]

_EVEN_WHEN_FULL = """local server = redis
local redis = {}
function redis.pcall(...)
  local reply = server.pcall(...)
  local is_full = type(reply) == 'table' and reply.err and string.find(reply.err, 'OOM', 1, true)
  if not is_full then return reply end
  server.call('HDEL', ARGV[1] .. ':dispatch', '')
  return server.pcall(...)
end
function redis.call(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  return server.call(...) -- raises
end
"""
"""Over `maxmemory` Redis refuses a script's first write that needs memory, and none after a
write that needs none. Leases must be renewed and jobs must end even then, or running jobs would
lose their leases one after the other. (From Redis 7 on, `#!lua flags=allow-oom` has the same effect.)
"""
_READING = ("queues", "explain")
"""Scripts that write nothing, so that a replica runs them as well."""

_JOB_FIELDS = (
    "state", "stage", "attempt", "max_attempts", "created_at", "started_at", "finished_at",
    "next_at", "worker", "failure", "result_url", "request", "tenant",
)  # fmt: skip
_UNREADABLE = (errors.InvalidRequest, ValueError, TypeError, OverflowError, OSError)
"""Errors of parsing a record: of JSON, of models and numbers, and of times that no calendar has."""


@cache
def load_script(name: str) -> str:
    """Returns the text of a script in `lua/`, behind `common.lua`."""
    folder = files("videoqa.jobs") / "lua"
    begin = "" if name in ("submit", "announce", *_READING) else _EVEN_WHEN_FULL
    return begin + (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


@cache
def hash_script(name: str) -> str:
    """Returns the SHA-1 of a script, by which Redis knows it."""
    return hashlib.sha1(load_script(name).encode(), usedforsecurity=False).hexdigest()


def check_job_id(job_id: str) -> None:
    """Raises JobNotFound for an id that is not ASCII: one with a lone surrogate could not even be sent.

    An id that is no text, such as None from a database, is an InvalidRequest.
    """
    if not isinstance(job_id, str):
        raise errors.InvalidRequest(f"got job id {job_id!r:.100}, expected text", param="job_id")
    if not job_id.isascii():
        raise errors.JobNotFound(f"no job {job_id!r} was ever recorded here; check the id")


class LedgerReader:
    """Reads the job records of one prefix in one Redis. Thread-safe.

    To the reader of a tenant, records of other tenants are not there: `_read_records` is the only way to
    a record, and the function `refuse` of `lua/common.lua` to a change of one.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        url: str,
        prefix: str = "videoqa",
        wait_replicas: int = 0,
    ) -> None:
        """Makes a reader of all records, for workers and operators.

        Arguments:
            wait_replicas: replicas that must have what a call recorded, before it returns.
        """
        self.tenant: str | None = None
        """The only tenant whose records there are; None: those of all."""
        self._redis = client
        self._url = url
        self.keys = Keys(prefix)
        self._replicas = ReplicaWait(wait_replicas, url=url, prefix=prefix)
        self._unreadable = UnreadableLog()

    def for_tenant(self, tenant: str | None) -> Self:
        """Returns a reader of one tenant's records, or of all; both together warn of each unreadable key once."""
        found = copy.copy(self)
        found.tenant = tenant
        return found

    def _run(self, script: str, *args: str | float) -> Any:
        values = [self.keys.prefix, *args]
        with translate_redis_errors(self._url):
            try:
                call = "EVALSHA", hash_script(script), 0, *values
                return self._replicas.run(self._redis, script, *call)
            except redis.exceptions.NoScriptError:
                # Text and call in one: a retry may meet another server, which knows no script yet.
                return self._replicas.run(
                    self._redis, script, "EVAL", load_script(script), 0, *values
                )

    def _run_many(self, script: str, calls: Sequence[Sequence[str | float]]) -> list[Any]:
        """Runs a script with the arguments of each call, in one round trip; an error is the reply of its call."""
        if not calls:
            return []
        pipe = self._redis.pipeline(transaction=False)
        pipe.script_load(load_script(script))  # here: a retry may meet another server
        for args in calls:
            pipe.evalsha(hash_script(script), 0, self.keys.prefix, *args)
        self._replicas.add(pipe, script)
        loaded, *replies = self._replicas.check(script, pipe.execute(raise_on_error=False))
        if isinstance(loaded, Exception):
            raise loaded
        return replies

    def _run_on(self, job_id: str, script: str) -> list[str]:
        """Runs a producer's script on one record, and raises the reason if it refuses that."""
        check_job_id(job_id)
        reply = cast("list[str]", self._run(script, job_id, self.tenant or ""))
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
            replies = self._execute(pipe)
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

    @staticmethod
    def _execute(pipe: Any) -> list[Any]:
        """Runs a pipeline; where a key holds another type than expected, that error is its reply."""
        replies = cast("list[Any]", pipe.execute(raise_on_error=False))
        for reply in replies:
            if isinstance(reply, Exception) and "WRONGTYPE" not in str(reply):
                raise reply
        return replies

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
            replies = self._execute(pipe)
        found = (("", None) if isinstance(reply, Exception) else reply for reply in replies)
        return [
            cast("JobState", state) if state and self.tenant in (None, tenant) else None
            for state, tenant in found
        ]

    def list_index(self, which: JobFilter, *, after: ListCursor | None, limit: int) -> ListedJobs:
        """Looks at up to `limit` positions of selected jobs behind `after`, newest first."""
        with translate_redis_errors(self._url):
            keys = self._choose_index(which)
            looked_at, has_more = self._read_index(keys, which, after, limit)
            is_kept = self._match([at.job_id for at in looked_at], which)
        return ListedJobs(
            found=[at for at, keeps in zip(looked_at, is_kept, strict=True) if keeps],
            keys=keys,
            last=looked_at[-1] if has_more else None,
        )

    def _choose_index(self, which: JobFilter) -> list[str]:
        """Returns the keys of the smallest index that holds the selected jobs."""
        choices = [[self._list_key("any", name)] for name in which.names]
        if which.state in FINAL_STATES:
            choices.append([self._list_key(which.state)])
        elif which.state is not None:
            choices.append([self._list_key("open")])
            if which.state != "queued":
                queues = cast("list[str]", self._redis.zrange(self.keys.queues, 0, -1))
                choices.append([self.keys.running(queue) for queue in sorted(queues)])
        elif not choices:
            choices.append([self._list_key(state) for state in ("open", *sorted(FINAL_STATES))])
        if len(choices) == 1:
            return choices[0]
        pipe = self._redis.pipeline(transaction=False)
        for keys in choices:
            for key in keys:
                pipe.zcard(key)
        sizes = iter(cast("list[int]", pipe.execute()))
        size = [sum(islice(sizes, len(keys))) for keys in choices]
        return choices[size.index(min(size))]

    def _list_key(self, state: str, name: str = "") -> str:
        return self.keys.job_list(state, self.tenant, name)

    def _read_index(
        self, keys: Sequence[str], which: JobFilter, after: ListCursor | None, limit: int
    ) -> tuple[list[ListCursor], bool]:
        """Returns positions of an index, and True if it may have more."""
        start = f"({which.until_s}" if which.until_s is not None else "+inf"
        if after is not None and (which.until_s is None or after.at_s < which.until_s):
            start = str(after.at_s)
        end = "-inf" if which.since_s is None else which.since_s
        skipped = 0 if after is None else 1
        while True:
            # At once, so that a job that changes its state meanwhile is in one of them.
            pipe = self._redis.pipeline(transaction=True)
            for key in keys:
                pipe.zrevrangebyscore(
                    key, start, end, start=0, num=limit + skipped, withscores=True
                )
            replies = pipe.execute()
            positions = {
                ListCursor(float(at_s), str(job_id)) for found in replies for job_id, at_s in found
            }
            merged = sorted(positions, reverse=True)[: limit + skipped]
            found = [at for at in merged if after is None or at < after]
            has_more = len(merged) == limit + skipped
            if found or not has_more:
                return found[:limit], has_more
            skipped += limit  # as many jobs as that were submitted at the very time of the cursor

    def _match(self, job_ids: Sequence[str], which: JobFilter) -> list[bool]:
        """Tells of jobs of an index if they are selected; one without a record is: its reader finds that out."""
        if not which.is_walked or not job_ids:
            return [True] * len(job_ids)
        pipe = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hmget(self.keys.job(job_id), "state", "filters", "tenant")
        replies = self._execute(pipe)
        return [
            not isinstance(reply, Exception)
            and which.selects(*reply[:2])
            and (reply[0] is None or self.tenant in (None, reply[2]))
            for reply in replies
        ]

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
            (found,) = self._execute(pipe)
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
            replies = iter(self._execute(pipe))
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

    def check_streams(self, keys: Sequence[str]) -> list[Exception | None]:
        """Returns the error with which reading each of these streams fails, or None."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for key in keys:
                pipe.xread({key: "$"})
            replies = self._execute(pipe)
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

    def queues(self) -> list[QueueInfo]:
        """Returns the queues in which jobs wait or run, that are paused, or that workers serve; by their names.

        For a tenant: those in which its jobs wait, or that workers serve, with its own waiting jobs only.
        """
        return self.read_queues(idle_s=0.0)[0]

    def read_queues(self, *, idle_s: float) -> tuple[list[QueueInfo], bool]:
        """Returns the queues, and whether jobs may be lost or due of which no reaper has made sure for `idle_s`."""
        is_due, *rows = self._run("queues", self.tenant or "", idle_s)
        found = (self._describe_queue(row) for row in sorted(rows))
        return [queue for queue in found if queue is not None], bool(is_due)

    def _describe_queue(self, row: Sequence[Any]) -> QueueInfo | None:
        (
            name,
            waiting,
            tenants,
            paused,
            oldest_at,
            oldest_s,
            running,
            delayed,
            due,
            workers,
            slots,
        ) = row
        model, priority = parse_queue_name(self.keys.prefix, name)
        if queue_name(self.keys.prefix, model, priority) != name:
            self._unreadable.warn(f"{self.keys.prefix}:queues {name}", "it is no queue's name")
            return None
        return QueueInfo(
            model=model,
            priority=priority,
            waiting=int(waiting),
            running=int(running),
            delayed=int(delayed),
            due=int(due),
            tenants=int(tenants),
            paused=bool(paused),
            workers=int(workers),
            slots=int(slots),
            oldest_at=_parse_oldest(oldest_at),
            oldest_s=float(oldest_s) if oldest_s else None,
        )

    def count_failures(self, *, within_s: float, most: int = 10_000) -> dict[str, int]:
        """Counts the jobs that failed within the last seconds, by code, the most frequent in front.

        Looks at the `most` failed jobs that were submitted last.
        """
        counts: Counter[str] = Counter()
        with translate_redis_errors(self._url):
            since = to_datetime(self._redis.time()[0] - within_s)
            key = self.keys.job_list("failed", self.tenant)
            ids = cast("list[str]", self._redis.zrevrange(key, 0, most - 1))
        for start in range(0, len(ids), 1000):
            for job in self.get_many(ids[start : start + 1000]):
                if isinstance(job, Job) and job.failure and job.finished_at:
                    counts[job.failure.code] += job.finished_at >= since
        return {code: count for code, count in counts.most_common() if count}

    def workers(self) -> list[WorkerInfo]:
        """Returns the workers whose announcements are younger than a minute."""
        with translate_redis_errors(self._url):
            ids = cast("list[str]", self._redis.zrange(self.keys.workers, 0, -1))
            pipe = self._redis.pipeline(transaction=False)
            for worker_id in ids:
                pipe.hget(self.keys.worker(worker_id), "info")
            replies = self._execute(pipe)
        found = (
            self._parse_worker(worker_id, reply)
            for worker_id, reply in zip(ids, replies, strict=True)
            if reply is not None
        )
        return [info for info in found if info is not None]

    def _parse_worker(self, worker_id: str, reply: str | Exception) -> WorkerInfo | None:
        try:
            if isinstance(reply, Exception):
                raise errors.InvalidRequest(str(reply))
            return parse_stored(WorkerInfo, reply)
        except errors.InvalidRequest as error:
            self._unreadable.warn(self.keys.worker(worker_id), error)
            return None


def _parse_time(text: str | None) -> Any:
    return to_datetime(float(text)) if text else None


def _parse_oldest(text: str) -> Any:
    """Parses the time of a job that is not read otherwise, whose record may hold anything."""
    try:
        return _parse_time(text)
    except _UNREADABLE:
        return None


def _parse_job(job_id: str, record: dict[str, Any], *, include_request: bool) -> Job:
    """Returns the job of a record, without position and reason for waiting, which are not in it."""
    request = parse_stored(JobRequest, record["request"])
    return Job(
        id=job_id,
        state=record["state"],
        stage=record["stage"] or None,
        attempt=int(record["attempt"]),
        max_attempts=int(record["max_attempts"]),
        created_at=_parse_time(record["created_at"]),
        started_at=_parse_time(record["started_at"]),
        finished_at=_parse_time(record["finished_at"]),
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
        request=redact_request(request) if include_request else None,
    )
