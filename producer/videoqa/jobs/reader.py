"""Reading from Redis: jobs, one or many, the index, results, events, queues and workers.

Changes nothing; `ledger.py` has the transitions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from itertools import count, takewhile
from typing import Any, cast

import redis

from videoqa import errors
from videoqa.contract import (
    Event,
    Failure,
    Job,
    JobRequest,
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
from videoqa.jobs.event_stream import includes_first, limit_block_ms, make_first, parse_events
from videoqa.jobs.keys import Keys, parse_queue_name
from videoqa.jobs.list_cursor import ListCursor

__all__ = ["LedgerReader", "check_job_id", "hash_script", "load_script"]

_EVEN_WHEN_FULL = "redis.call('HDEL', P .. ':bells', '')\n"
"""Over `maxmemory` Redis refuses a script's first write that needs memory, and none after a
write that needs none. Leases must be renewed and jobs must end even then, or running jobs would
lose their leases one after the other. (From Redis 7 on, `#!lua flags=allow-oom` has the same effect.)
"""

_JOB_FIELDS = (
    "state", "stage", "attempt", "max_attempts", "created_at", "started_at", "finished_at",
    "next_at", "worker", "failure", "result_url", "request", "queue", "follows",
    "suspect", "kept_at",
)  # fmt: skip


@cache
def load_script(name: str) -> str:
    """Returns the text of a script in `lua/`, behind `common.lua`."""
    folder = files("videoqa.jobs") / "lua"
    begin = "" if name == "submit" else _EVEN_WHEN_FULL
    return (folder / "common.lua").read_text() + begin + (folder / f"{name}.lua").read_text()


@cache
def hash_script(name: str) -> str:
    """Returns the SHA-1 of a script, by which Redis knows it."""
    return hashlib.sha1(load_script(name).encode(), usedforsecurity=False).hexdigest()


def check_job_id(job_id: str) -> None:
    """Raises JobNotFound for an id that is not ASCII: one with a lone surrogate could not even be sent."""
    if not job_id.isascii():
        raise errors.JobNotFound(f"no job {job_id!r} was ever recorded here; check the id")


class LedgerReader:
    """Reads the job records of one prefix in one Redis. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str = "videoqa") -> None:
        self._redis = client
        self._url = url
        self.keys = Keys(prefix)

    def _run(self, script: str, *args: str | float) -> Any:
        values = [self.keys.prefix, *args]
        with translate_redis_errors(self._url):
            try:
                return self._redis.evalsha(hash_script(script), 0, *values)
            except redis.exceptions.NoScriptError:
                # Text and call in one: a retry may meet another server, which knows no script yet.
                return self._redis.eval(load_script(script), 0, *values)

    def get(self, job_id: str, *, include_request: bool = False) -> Job:
        """Returns the job, with position and reason for waiting; raises JobNotFound or JobExpired."""
        check_job_id(job_id)
        with translate_redis_errors(self._url):
            values = cast("list[str | None]", self._redis.hmget(self.keys.job(job_id), _JOB_FIELDS))
        record = dict(zip(_JOB_FIELDS, values, strict=True))
        if record["state"] is None:
            raise self._explain_missing(job_id)
        position, waiting_for = self._explain_wait(job_id, record)
        job = _parse_job(job_id, record, include_request=include_request)
        return job.model_copy(update={"position": position, "waiting_for": waiting_for})

    def get_many(
        self, job_ids: Sequence[str], *, include_request: bool = False
    ) -> list[Job | None]:
        """Returns jobs without position and reason for waiting, in one round trip; None: unknown or expired."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                # A lone surrogate could not even be sent; no job has the empty id.
                pipe.hmget(self.keys.job(job_id if job_id.isascii() else ""), _JOB_FIELDS)
            found = pipe.execute()
        records = (dict(zip(_JOB_FIELDS, values, strict=True)) for values in found)
        return [
            _parse_job(job_id, record, include_request=include_request) if record["state"] else None
            for job_id, record in zip(job_ids, records, strict=True)
        ]

    def list_index(
        self, *, tag: str | None, after: ListCursor | None, limit: int
    ) -> list[ListCursor]:
        """Returns positions in the index, newest first, behind `after`; their records may be gone."""
        start = after.at_s if after else "+inf"
        with translate_redis_errors(self._url):
            found = self._redis.zrevrangebyscore(
                self.keys.index(tag), start, "-inf", start=0, num=limit, withscores=True
            )
        cursors = [
            ListCursor(float(at_s), str(job_id)) for job_id, at_s in cast("list[Any]", found)
        ]
        return [cursor for cursor in cursors if after is None or cursor < after]

    def _explain_wait(
        self, job_id: str, record: dict[str, str | None]
    ) -> tuple[int | None, str | None]:
        """Returns a queued job's position in its queue, and the reason why it waits."""
        if record["state"] != "queued":
            return None, None
        if record["next_at"]:
            return None, "the delay before its next attempt"
        if record["follows"]:
            return None, f"job {record['follows']}, which asks the same"
        queue = record["queue"] or ""
        position = int(self._run("position", job_id))
        return (position if position >= 0 else None), self._explain_queue(queue, record)

    def _explain_queue(self, queue: str, record: dict[str, str | None]) -> str:
        """Returns the reason why the first job of the queue waits."""
        with translate_redis_errors(self._url):
            if self._redis.sismember(self.keys.paused, queue):
                return "its queue is paused"
        serving = [info for info in self.workers() if queue in info.queues]
        if not serving:
            model = parse_stored(JobRequest, record["request"] or "").model
            return f"no running worker serves {f'model {model}' if model else 'any model'}"
        if not any(info.ready for info in serving):
            return "its workers are still loading the model"
        if _is_exclusive(record):
            return "a worker in which nothing else runs: its last attempt runs by itself"
        return "a free worker"

    def result(self, job_id: str) -> tuple[Job, Result | None]:
        """Returns the job, and its result if the record holds it."""
        job = self.get(job_id)
        with translate_redis_errors(self._url):
            text = cast("str | None", self._redis.hget(self.keys.job(job_id), "result"))
        return job, parse_stored(Result, text) if text else None

    def segments(self, job_id: str, fingerprint: str) -> list[Segment]:
        """Returns the segments that earlier attempts answered, from the first on without a gap.

        They end before one that this release cannot parse. There are none if the stored fingerprint,
        which stands for the video and the questions, is another one.
        """
        with translate_redis_errors(self._url):
            found = cast("dict[str, str]", self._redis.hgetall(self.keys.segments(job_id)))
        if found.get("of") != fingerprint:
            return []
        texts = takewhile(bool, (found.get(str(number)) for number in count()))
        segments: list[Segment] = []
        with suppress(errors.InvalidRequest):
            for text in texts:
                segments.append(parse_stored(Segment, text or ""))
        return segments

    def request(self, job_id: str) -> JobRequest:
        """Returns the job's request; raises JobNotFound or JobExpired."""
        with translate_redis_errors(self._url):
            text = cast("str | None", self._redis.hget(self.keys.job(job_id), "request"))
        if text is None:
            raise self._explain_missing(job_id)
        return parse_stored(JobRequest, text)

    def read_events(self, job_id: str, *, after: str = "0", block_s: float = 0.0) -> list[Event]:
        """Returns the events after the id `after`, waiting up to `block_s` for the first."""
        with translate_redis_errors(self._url):
            first = make_first(self._read_created_at(job_id)) if includes_first(after) else []
            block_ms = limit_block_ms(block_s, first)
            reply = self._redis.xread({self.keys.events(job_id): after}, block=block_ms)
        return first + parse_events(reply)

    def _read_created_at(self, job_id: str) -> str | None:
        return cast("str | None", self._redis.hget(self.keys.job(job_id), "created_at"))

    def _explain_missing(self, job_id: str) -> errors.LookupFailed:
        with translate_redis_errors(self._url):
            state = cast("str | None", self._redis.get(self.keys.final_state(job_id)))
        if state:
            return errors.JobExpired(
                f"job {job_id} {describe_state(state)}, and its record is gone (result_ttl_s is over, or "
                "it was purged); its result object, if it had one, is still in storage"
            )
        return errors.JobNotFound(
            f"no job {job_id} was ever recorded here; check the id and VIDEOQA_REDIS_URL"
        )

    def queues(self) -> list[QueueInfo]:
        """Returns all queues that were ever used, in the order of their names."""
        workers = self.workers()
        return [
            self._describe_queue(str(name), int(waiting), int(tenants), bool(paused), workers)
            for name, waiting, tenants, paused in sorted(self._run("queues"))
        ]

    def _describe_queue(
        self, name: str, waiting: int, tenants: int, paused: bool, workers: Sequence[WorkerInfo]
    ) -> QueueInfo:
        model, priority = parse_queue_name(self.keys.prefix, name)
        return QueueInfo(
            model=model,
            priority=priority,
            waiting=waiting,
            tenants=tenants,
            paused=paused,
            workers=sum(info.ready and name in info.queues for info in workers),
        )

    def workers(self) -> list[WorkerInfo]:
        """Returns the workers whose announcements are younger than `WORKER_TTL_S`."""
        with translate_redis_errors(self._url):
            ids = cast("list[str]", self._redis.zrange(self.keys.workers, 0, -1))
            pipe = self._redis.pipeline(transaction=False)
            for worker_id in ids:
                pipe.hget(self.keys.worker(worker_id), "info")
            texts = pipe.execute()
        return [parse_stored(WorkerInfo, text) for text in texts if text]


def _parse_time(text: str | None) -> Any:
    return to_datetime(float(text)) if text else None


def _parse_job(job_id: str, record: dict[str, Any], *, include_request: bool) -> Job:
    """Returns the job of a record, without position and reason for waiting, which are not in it."""
    request = parse_stored(JobRequest, record["request"])
    return Job(
        id=job_id,
        state=record["state"],
        stage=record["stage"],
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


def _is_exclusive(record: dict[str, str | None]) -> bool:
    """See `lua/common.lua`. A kept answer is too large to look for; `kept_at` comes and goes with it."""
    if not record["suspect"] or record["kept_at"]:
        return False
    return int(record["attempt"] or 0) + 1 >= int(record["max_attempts"] or 0)
