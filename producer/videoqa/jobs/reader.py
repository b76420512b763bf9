"""Reading the records of jobs in Redis: one, many, lists, results, events, queues and workers.

Changes nothing; `states.py` holds the transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from itertools import count, takewhile
from typing import Any, TypeVar, cast

import redis
from pydantic import ValidationError

from videoqa import errors
from videoqa.contract import (
    Event,
    Failure,
    Job,
    JobRequest,
    Model,
    QueueInfo,
    Result,
    Segment,
    WorkerInfo,
    utc,
)
from videoqa.jobs.connection import speaking_redis
from videoqa.jobs.keys import Keys, served_by
from videoqa.jobs.submission import Place

__all__ = ["BEGINNINGS", "Records", "check_id", "read", "script_text", "to_events"]

M = TypeVar("M", bound=Model)

BEGINNINGS = ("0", "0-0")
"""Before every event."""

_EVEN_WHEN_FULL = "redis.call('HDEL', P .. ':bells', '')\n"
"""Over `maxmemory` Redis refuses a script's first write that needs memory, and none after a
write that needs none. Leases must be renewed and jobs must end even then, or running jobs would
lose their leases one after the other. (`#!lua flags=allow-oom` says the same from Redis 7 on.)
"""

_VIEW = (
    "state", "stage", "attempt", "max_attempts", "created_at", "started_at", "finished_at",
    "next_at", "worker", "failure", "result_url", "request", "queue", "follows",
    "suspect", "kept_at",
)  # fmt: skip


@cache
def script_text(name: str) -> str:
    folder = files("videoqa.jobs") / "lua"
    begin = "" if name == "submit" else _EVEN_WHEN_FULL
    return (folder / "common.lua").read_text() + begin + (folder / f"{name}.lua").read_text()


def check_id(job_id: str) -> None:
    """Raises JobNotFound: a lone surrogate, say, could not even be sent."""
    if not job_id.isascii():
        raise errors.JobNotFound(f"no job {job_id!r} was ever recorded here; check the id")


class Records:
    """The job records of one prefix in one Redis. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str = "videoqa") -> None:
        self._redis = client
        self._url = url
        self.keys = Keys(prefix)

    def _run(self, script: str, *args: str | float) -> Any:
        code = self._redis.register_script(script_text(script))
        with speaking_redis(self._url):
            return code(args=[self.keys.prefix, *args])

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound or JobExpired."""
        check_id(job_id)
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
                # A lone surrogate could not even be sent; no job has the empty id.
                pipe.hmget(self.keys.job(job_id if job_id.isascii() else ""), _VIEW)
            found = pipe.execute()
        records = (dict(zip(_VIEW, values, strict=True)) for values in found)
        return [
            _job(job_id, record, None, None) if record["state"] else None
            for job_id, record in zip(job_ids, records, strict=True)
        ]

    def places(self, *, tag: str | None, after: Place | None, limit: int) -> list[Place]:
        """Of jobs in the index, newest first, behind `after`; records may be gone."""
        start = after.at_s if after else "+inf"
        with speaking_redis(self._url):
            found = self._redis.zrevrangebyscore(
                self.keys.index(tag), start, "-inf", start=0, num=limit, withscores=True
            )
        places = [Place(float(at_s), str(job_id)) for job_id, at_s in cast("list[Any]", found)]
        return [place for place in places if after is None or place < after]

    def _waiting(self, job_id: str, record: dict[str, str | None]) -> tuple[int | None, str | None]:
        """Position in the queue and the reason for waiting, of a queued job."""
        if record["state"] != "queued":
            return None, None
        if record["next_at"]:
            return None, "the delay before its next attempt"
        if record["follows"]:
            return None, f"job {record['follows']}, which asks the same"
        queue = record["queue"] or ""
        position = int(self._run("position", job_id))
        return (position if position >= 0 else None), self._reason(queue, record)

    def _reason(self, queue: str, record: dict[str, str | None]) -> str:
        """Why the first job of the queue would wait."""
        with speaking_redis(self._url):
            if self._redis.sismember(self.keys.paused, queue):
                return "its queue is paused"
        serving = [info for info in self.workers() if queue in info.queues]
        if not serving:
            model = read(JobRequest, record["request"] or "").model
            return f"no running worker serves {f'model {model}' if model else 'any model'}"
        if not any(info.ready for info in serving):
            return "its workers are still loading the model"
        if _is_exclusive(record):
            return "a worker in which nothing else runs: its last attempt runs by itself"
        return "a free worker"

    def result(self, job_id: str) -> tuple[Job, Result | None]:
        """The job, and its result where the record holds it."""
        job = self.get(job_id)
        with speaking_redis(self._url):
            text = cast("str | None", self._redis.hget(self.keys.job(job_id), "result"))
        return job, read(Result, text) if text else None

    def segments(self, job_id: str, fingerprint: str) -> list[Segment]:
        """Those from the first on that attempts before answered, of a video and questions that this
        fingerprint stands for; up to one that a newer release wrote in a way not known here."""
        with speaking_redis(self._url):
            found = cast("dict[str, str]", self._redis.hgetall(self.keys.segments(job_id)))
        if found.get("of") != fingerprint:
            return []
        texts = takewhile(bool, (found.get(str(number)) for number in count()))
        segments: list[Segment] = []
        with suppress(errors.InvalidRequest):
            for text in texts:
                segments.append(read(Segment, text or ""))
        return segments

    def request(self, job_id: str) -> JobRequest:
        with speaking_redis(self._url):
            text = cast("str | None", self._redis.hget(self.keys.job(job_id), "request"))
        if text is None:
            raise self._missing(job_id)
        return read(JobRequest, text)

    def read_events(self, job_id: str, *, after: str = "0", block_s: float = 0.0) -> list[Event]:
        """Events after the id `after`, waiting up to `block_s` for the first."""
        begun = self._begun(job_id) if after in BEGINNINGS else []
        if begun:
            block_s = 0.0
        with speaking_redis(self._url):
            reply = self._redis.xread(
                {self.keys.events(job_id): after}, block=int(block_s * 1000) if block_s else None
            )
        return begun + to_events(reply)

    def _begun(self, job_id: str) -> list[Event]:
        """The job's first event. Its stream does not hold it: one of a single entry takes 530 bytes
        (measured with Valkey 9.1), and of a backlog no job has more.
        """
        with speaking_redis(self._url):
            created_at = cast("str | None", self._redis.hget(self.keys.job(job_id), "created_at"))
        if created_at is None:
            return []
        # Before all that the stream will hold.
        first = f"{int(float(created_at) * 1000) - 1}-0"
        return [Event(id=first, type="state", state="queued", at=_at(created_at))]

    def _missing(self, job_id: str) -> errors.LookupFailed:
        with speaking_redis(self._url):
            state = cast("str | None", self._redis.get(self.keys.gone(job_id)))
        if state:
            return errors.JobExpired(
                f"job {job_id} {state}, and its record is gone (result_ttl_s is over, or it was purged); "
                "its result object, if it had one, is still in storage"
            )
        return errors.JobNotFound(
            f"no job {job_id} was ever recorded here; check the id and VIDEOQA_REDIS_URL"
        )

    def queues(self) -> list[QueueInfo]:
        """All queues that were ever used, in the order of their names."""
        workers = self.workers()
        return [
            self._queue(str(name), int(waiting), int(tenants), bool(paused), workers)
            for name, waiting, tenants, paused in sorted(self._run("queues"))
        ]

    def _queue(
        self, name: str, waiting: int, tenants: int, paused: bool, workers: Sequence[WorkerInfo]
    ) -> QueueInfo:
        model, priority = served_by(self.keys.prefix, name)
        return QueueInfo(
            model=model,
            priority=priority,
            waiting=waiting,
            tenants=tenants,
            paused=paused,
            workers=sum(info.ready and name in info.queues for info in workers),
        )

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


def to_events(reply: Any) -> list[Event]:
    """What XREAD says of one stream."""
    if not reply:
        return []
    streams = reply.values() if isinstance(reply, dict) else [entry[1] for entry in reply]
    entries = next(iter(streams))
    if entries and isinstance(entries[0], list):  # RESP3 nests once more
        entries = entries[0]
    return [_event(event_id, fields) for event_id, fields in entries]


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


def _is_exclusive(record: dict[str, str | None]) -> bool:
    """See `lua/common.lua`. A kept answer is too large to look for; `kept_at` comes and goes with it."""
    if not record["suspect"] or record["kept_at"]:
        return False
    return int(record["attempt"] or 0) + 1 >= int(record["max_attempts"] or 0)


def _event(event_id: str, fields: dict[str, str]) -> Event:
    data: dict[str, Any] = {name: value for name, value in fields.items() if value != ""}
    return Event(**(data | {"id": event_id, "at": utc(float(data["at"]))}))
