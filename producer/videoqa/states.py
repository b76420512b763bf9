"""The life of a job: its record in Redis and every transition of it.

    queued -> running -> succeeded | failed | canceled | expired
      ^         |  \\-> canceling -> canceled
      \\---------/  lost worker, retryable failure, released

The record is the job; a Celery message is only a doorbell.
Each transition is one Lua script (`lua/`), atomic, on Redis' clock. A worker's writes
carry the token of its claim, the fence: a write of an older attempt, or after the lease
went to somebody else, is refused as `lost`. The attempt's number would not do: a Redis that
lost its last second counts it twice.

A bell says that a job waits in a queue, not which: whoever hears it takes the job whose turn
it is. Tenants take turns, each with its own jobs first in, first out. Bells carry serial
numbers, counted a queue. The broker's queue is first in, first out too, so hearing bell 7
proves that bell 6 is no longer in it: if more jobs wait than bells came after the last that
was heard, some are lost, and the reaper rings as many again. What still waits is left alone.

This module knows records and bells, and nothing of Celery, videos or models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar, cast

import redis
from pydantic import ValidationError

from videoqa import errors
from videoqa.connection import speaking_redis
from videoqa.job import Event, Failure, Job, JobRequest, Result, WorkerInfo, utc
from videoqa.queues import WORKER_TTL_S, Keys
from videoqa.request import Model
from videoqa.submission import Bell, Submission, new_job_id, to_bell

__all__ = [
    "Bell",
    "Claim",
    "Fence",
    "Flight",
    "Ledger",
    "Submission",
    "Unreadable",
    "new_job_id",
    "read",
]

Fence = Literal["ok", "cancel", "lost"]
Flight = Literal["ok", "cancel", "lost", "follow"]
M = TypeVar("M", bound=Model)

_EVEN_WHEN_FULL = "redis.call('HDEL', P .. ':bells', '')\n"
"""Over `maxmemory` Redis refuses a script's first write that needs memory, and none after a
write that needs none. Leases must be renewed and jobs must end even then, or running jobs would
lose their leases one after the other. (`#!lua flags=allow-oom` says the same from Redis 7 on.)
"""

_VIEW = (
    "state", "stage", "attempt", "max_attempts", "created_at", "started_at", "finished_at",
    "next_at", "worker", "failure", "result_url", "request", "queue", "follows",
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A job that is now ours to run, until the lease ends."""

    job_id: str
    attempt: int
    request: JobRequest
    created_at_s: float
    timeout_s: float
    queued_s: float
    token: str
    """Fences every write of this attempt."""
    kept: Result | None = None
    """What an attempt before this one answered and could not store."""


@dataclass(frozen=True)
class Unreadable:
    """A claim of a job that this release does not understand."""

    job_id: str
    attempt: int
    error: errors.InvalidRequest


@cache
def _script_text(name: str) -> str:
    folder = files("videoqa") / "lua"
    begin = "" if name == "submit" else _EVEN_WHEN_FULL
    return (folder / "common.lua").read_text() + begin + (folder / f"{name}.lua").read_text()


class Ledger:
    """The job records of one prefix in one Redis. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str = "videoqa") -> None:
        self._redis = client
        self._url = url
        self.keys = Keys(prefix)

    def _run(self, script: str, *args: str | float) -> Any:
        code = self._redis.register_script(_script_text(script))
        with speaking_redis(self._url):
            return code(args=[self.keys.prefix, *args])

    # -- the producer's transitions

    def submit(
        self,
        job_id: str,
        request: JobRequest,
        *,
        start_by_default_s: float,
        max_queued: int = 2**53,
    ) -> Bell | str:
        """Records a job as queued. Returns its bell to ring, or the id of the job that
        this idempotency key already made.

        Raises:
            IdempotencyConflict: the key belongs to another request.
            InvalidRequest: the request is over 1 MiB as JSON.
            QueueFull: `max_queued` jobs wait in the request's queue.
        """
        submission = Submission(job_id, request)
        order = submission.order(self.keys.prefix, start_by_default_s, max_queued)
        made = submission.outcome(self._run("submit", *order), max_queued)
        if isinstance(made, errors.VideoQAError):
            raise made
        return made

    def submit_many(
        self,
        submissions: Sequence[Submission],
        *,
        start_by_default_s: float,
        max_queued: int = 2**53,
    ) -> list[Bell | str | errors.IdempotencyConflict | errors.QueueFull]:
        """The same for many jobs in one round trip; errors are returned, each in its job's place."""
        code = self._redis.register_script(_script_text("submit"))
        prefix = self.keys.prefix
        with speaking_redis(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for submission in submissions:
                order = submission.order(prefix, start_by_default_s, max_queued)
                code(args=[prefix, *order], client=pipe)
            replies = pipe.execute()
        return [
            submission.outcome(reply, max_queued)
            for submission, reply in zip(submissions, replies, strict=True)
        ]

    def cancel(self, job_id: str) -> None:
        """Queued jobs end at once; running ones become `canceling` until their worker stops."""
        if self._run("cancel", job_id) == "":
            raise self._missing(job_id)

    def retry(self, job_id: str) -> Bell:
        """Reopens a failed, canceled or expired job under its id, with the next attempt."""
        reply = self._run("retry", job_id)
        if reply[0] == "unknown":
            raise self._missing(job_id)
        if reply[0] == "state":
            raise errors.NotRetryable(
                f"job {job_id} is {reply[1]}; only failed, canceled or expired jobs can be retried"
            )
        return to_bell(reply[1:])

    def dead(self) -> list[str]:
        """Ids of all failed jobs that are kept, those whose records end first at the front."""
        with speaking_redis(self._url):
            return cast(list[str], self._redis.zrange(self.keys.dead, 0, -1))

    def purge(self, job_id: str) -> bool:
        """Forgets a failed job; False if it is not failed any more. Its result objects stay."""
        return bool(self._run("purge", job_id))

    # -- the worker's transitions, each fenced by its claim's token

    def claim(
        self, bell: Bell, *, worker: str, lease_s: float, token: str
    ) -> Claim | Unreadable | str:
        """Takes the job whose turn it is in the bell's queue. If none waits, says what became of the
        one that the bell was rung for.

        `token` names this very call: the same call repeated after a lost reply gets its
        claim again, another one does not.
        """
        reply = self._run(
            "claim", bell.job_id, bell.attempt, bell.bell, worker, lease_s, token, bell.queue
        )
        if reply[0] == "drop":
            return str(reply[1])
        _, job_id, attempt, request, created_at_s, timeout_s, queued_s, kept = reply
        try:
            parsed = read(JobRequest, request)
        except errors.InvalidRequest as error:
            return Unreadable(job_id, int(attempt), error)
        return Claim(
            job_id=job_id,
            attempt=int(attempt),
            request=parsed,
            created_at_s=float(created_at_s),
            timeout_s=float(timeout_s),
            queued_s=max(0.0, float(queued_s)),
            token=token,
            kept=_kept(kept),
        )

    def renew(self, held: Iterable[tuple[str, str]], *, lease_s: float) -> list[Fence]:
        """Extends the leases of (job id, token) pairs in one round trip."""
        code = _script_text("renew")
        with speaking_redis(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for job_id, token in held:
                pipe.eval(code, 0, self.keys.prefix, job_id, token, str(lease_s))
            return cast(list[Fence], pipe.execute())

    def progress(
        self,
        job_id: str,
        token: str,
        stage: errors.Stage,
        *,
        message: str = "",
        done: int = 0,
        total: int = 0,
        question_id: str = "",
        text: str = "",
    ) -> Fence:
        """Says where the attempt is; the answer says whether it should go on.

        `text`: instead, the next piece of the answer to this question.
        """
        steps = (done, total) if total else ("", "")
        reply = self._run("progress", job_id, token, stage, message, *steps, question_id, text)
        return cast(Fence, reply)

    def finish(
        self,
        job_id: str,
        token: str,
        *,
        result: Result | None,
        result_url: str,
        cache_key: str | None = None,
        cache_ttl_s: float = 0.0,
    ) -> Fence:
        """Ends the job as succeeded.

        Arguments:
            result: kept in the record unless None (too large).
            cache_key: later jobs find the object by it for `cache_ttl_s`.
        """
        text = result.model_dump_json() if result else ""
        reply = self._run(
            "finish", job_id, token, text, result_url, cache_key or "", int(cache_ttl_s)
        )
        return cast(Fence, reply)

    def fail(
        self,
        job_id: str,
        token: str,
        failure: Failure,
        *,
        delay_s: float,
        kept: Result | None = None,
        keep_s: float = 0.0,
    ) -> Literal["failed", "retry", "canceled", "lost"]:
        """Ends the attempt; the job fails, or waits `delay_s` for its next one.

        Arguments:
            kept: what was answered and could not be stored. The record keeps it for the next attempts,
                which are not counted but go on for `keep_s`, and for a `retry`.
        """
        reply = self._run(
            "fail",
            job_id,
            token,
            failure.model_dump_json(exclude_none=True),
            int(failure.retryable),
            delay_s,
            kept.model_dump_json() if kept else "",
            keep_s,
        )
        return cast(Literal["failed", "retry", "canceled", "lost"], reply)

    def lead(self, job_id: str, token: str, key: str) -> Flight:
        """Whether this attempt is the one that asks, of all jobs whose answers have this key. `follow`:
        another does; the job is queued again, not counted, when that one ends."""
        return cast(Flight, self._run("lead", job_id, token, key))

    def answer(self, key: str) -> str | None:
        """The URL of a result with this key."""
        with speaking_redis(self._url):
            return cast("str | None", self._redis.get(self.keys.answer(key)))

    def release(self, job_id: str, token: str, *, kept: Result | None = None) -> Bell | None:
        """Gives a running job back without counting the attempt; the bell is to be rung.

        `kept`: what was answered and not stored yet, for the next attempt.
        """
        reply = self._run("release", job_id, token, kept.model_dump_json() if kept else "")
        return to_bell(reply) if reply else None

    def reap(
        self, *, grace_s: float, empty_queues: Sequence[str] = (), limit: int = 100
    ) -> list[Bell]:
        """Requeues or ends what lost its worker, its bell or its time; returns bells to ring.

        `empty_queues`: those in which the broker holds no message. Bells are rung again only if they
        have been missing for `grace_s`: until then they may be on their way.
        """
        return [to_bell(item) for item in self._run("reap", grace_s, limit, *empty_queues)]

    # -- reading

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound or JobExpired."""
        if not job_id.isascii():  # a lone surrogate could not even be sent
            raise errors.JobNotFound(f"no job {job_id!r} was ever recorded here; check the id")
        with speaking_redis(self._url):
            values = cast("list[str | None]", self._redis.hmget(self.keys.job(job_id), _VIEW))
        record = dict(zip(_VIEW, values, strict=True))
        if record["state"] is None:
            raise self._missing(job_id)
        position, waiting_for = self._waiting(job_id, record)
        return _job(job_id, record, position, waiting_for)

    def get_many(self, job_ids: Sequence[str]) -> list[Job | None]:
        """In one round trip, without position and reason for waiting; None: unknown or expired."""
        with speaking_redis(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hmget(self.keys.job(job_id), _VIEW)
            found = pipe.execute()
        records = (dict(zip(_VIEW, values, strict=True)) for values in found)
        return [
            _job(job_id, record, None, None) if record["state"] else None
            for job_id, record in zip(job_ids, records, strict=True)
        ]

    def ids(self, *, tag: str | None, after: str | None, limit: int) -> list[str]:
        """Ids of jobs, newest first, behind the id `after`; records may be gone."""
        key = self.keys.index(tag)
        with speaking_redis(self._url):
            found = self._redis.zrevrangebylex(
                key, f"({after}" if after else "+", "-", start=0, num=limit
            )
        return cast("list[str]", found)

    def forget(self, job_ids: Sequence[str], *, tag: str | None) -> None:
        """Takes ids whose records are gone out of the index."""
        if job_ids:
            with speaking_redis(self._url):
                self._redis.zrem(self.keys.index(tag), *job_ids)

    def _waiting(self, job_id: str, record: dict[str, str | None]) -> tuple[int | None, str | None]:
        """Position in the queue and the reason for waiting, of a queued job."""
        if record["state"] != "queued":
            return None, None
        if record["next_at"]:
            return None, "the delay before its next attempt"
        if record["follows"]:
            return None, f"job {record['follows']}, which asks the same"
        queue = record["queue"] or ""
        found = int(self._run("position", job_id))
        position = found if found >= 0 else None
        serving = [info for info in self.workers() if queue in info.queues]
        if not serving:
            model = read(JobRequest, record["request"] or "").model
            return (
                position,
                f"no running worker serves {f'model {model}' if model else 'any model'}",
            )
        if not any(info.ready for info in serving):
            return position, "its workers are still loading the model"
        return position, "a free worker"

    def result(self, job_id: str) -> tuple[Job, Result | None]:
        """The job, and its result where the record holds it."""
        job = self.get(job_id)
        with speaking_redis(self._url):
            text = cast("str | None", self._redis.hget(self.keys.job(job_id), "result"))
        return job, read(Result, text) if text else None

    def request(self, job_id: str) -> JobRequest:
        with speaking_redis(self._url):
            text = cast("str | None", self._redis.hget(self.keys.job(job_id), "request"))
        if text is None:
            raise self._missing(job_id)
        return read(JobRequest, text)

    def read_events(self, job_id: str, *, after: str = "0", block_s: float = 0.0) -> list[Event]:
        """Events after the id `after`, waiting up to `block_s` for the first."""
        with speaking_redis(self._url):
            reply = self._redis.xread(
                {self.keys.events(job_id): after}, block=int(block_s * 1000) if block_s else None
            )
        if not reply:
            return []
        streams = reply.values() if isinstance(reply, dict) else [entry[1] for entry in reply]
        entries = next(iter(streams))
        if entries and isinstance(entries[0], list):  # RESP3 nests once more
            entries = entries[0]
        return [_event(event_id, fields) for event_id, fields in entries]

    def _missing(self, job_id: str) -> errors.LookupFailed:
        with speaking_redis(self._url):
            state = cast("str | None", self._redis.get(self.keys.gone(job_id)))
        if state:
            return errors.JobExpired(
                f"job {job_id} {state}, and its record is gone (result_ttl_s is over); "
                "its result object, if it had one, is still in storage"
            )
        return errors.JobNotFound(
            f"no job {job_id} was ever recorded here; check the id and VIDEOQA_REDIS_URL"
        )

    # -- workers

    def announce(self, info: WorkerInfo) -> None:
        """A worker says that it lives; forgotten 60 s after its last word."""
        key = self.keys.worker(info.id)
        with speaking_redis(self._url):
            # Redis' clock: a worker's own may be wrong, and would prune all others.
            now_s = self._redis.time()[0]
            pipe = self._redis.pipeline()
            pipe.hset(key, "info", info.model_dump_json())
            pipe.expire(key, WORKER_TTL_S)
            pipe.zadd(self.keys.workers, {info.id: now_s})
            pipe.zremrangebyscore(self.keys.workers, "-inf", now_s - WORKER_TTL_S)
            pipe.execute()

    def leave(self, worker_id: str) -> None:
        with speaking_redis(self._url):
            pipe = self._redis.pipeline()
            pipe.delete(self.keys.worker(worker_id))
            pipe.zrem(self.keys.workers, worker_id)
            pipe.execute()

    def workers(self) -> list[WorkerInfo]:
        with speaking_redis(self._url):
            ids = cast("list[str]", self._redis.zrange(self.keys.workers, 0, -1))
            pipe = self._redis.pipeline(transaction=False)
            for worker_id in ids:
                pipe.hget(self.keys.worker(worker_id), "info")
            texts = pipe.execute()
        return [read(WorkerInfo, text) for text in texts if text]


def read(kind: type[M], text: str | bytes) -> M:
    """What another process wrote. In a rolling upgrade that may be a newer release: a field
    that is not known here is none of our business.

    Raises:
        InvalidRequest: it says something that this release cannot understand.
    """
    try:
        return kind.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        raise errors.InvalidRequest(
            f"this release does not understand the {kind.__name__} that a newer one wrote: "
            f"{error.errors()[0]['msg']}; upgrade this side"
        ) from error


def _kept(text: str) -> Result | None:
    try:
        return read(Result, text) if text else None
    except errors.InvalidRequest:  # of a newer release: the model can be asked again
        return None


def _at(text: str | None) -> Any:
    return utc(float(text)) if text else None


def _job(job_id: str, record: dict[str, Any], position: int | None, waiting_for: str | None) -> Job:
    request = read(JobRequest, record["request"])
    return Job(
        id=job_id,
        state=record["state"],
        stage=record["stage"],
        attempt=int(record["attempt"]),
        max_attempts=int(record["max_attempts"]),
        created_at=_at(record["created_at"]),
        started_at=_at(record["started_at"]),
        finished_at=_at(record["finished_at"]),
        next_attempt_at=_at(record["next_at"]),
        position=position,
        waiting_for=waiting_for,
        model=request.model,
        priority=request.priority,
        tenant=request.tenant,
        worker=record["worker"],
        failure=read(Failure, record["failure"]) if record["failure"] else None,
        result_url=record["result_url"],
        custom_id=request.custom_id,
        tags=request.tags,
        metadata=request.metadata,
    )


def _event(event_id: str, fields: dict[str, str]) -> Event:
    data: dict[str, Any] = {name: value for name, value in fields.items() if value != ""}
    return Event(**(data | {"id": event_id, "at": utc(float(data["at"]))}))
