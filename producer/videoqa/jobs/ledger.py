r"""The life of a job: its record in Redis and every transition of it.

    queued -> running -> succeeded | failed | canceled | expired
      ^         |  \-> canceling -> canceled
      \---------/  lost worker, retryable failure, released

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

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from videoqa import errors
from videoqa.contract import Failure, JobRequest, Result, Segment, WorkerInfo
from videoqa.jobs.connection import speaking_redis
from videoqa.jobs.keys import WORKER_TTL_S
from videoqa.jobs.reader import Records, check_id, read, script_text
from videoqa.jobs.submission import Bell, Submission, new_job_id, to_bell

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
    is_last_chance: bool = False
    """Its workers were lost, and this attempt is the last: it is to run by itself. Its time and its
    attempt begin with its first progress."""


@dataclass(frozen=True)
class Unreadable:
    """A claim of a job that this release does not understand."""

    job_id: str
    attempt: int
    error: errors.InvalidRequest


class Ledger(Records):
    """The job records of one prefix in one Redis. Thread-safe."""

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
    ) -> list[Bell | str | errors.IdempotencyConflict | errors.QueueFull | errors.RedisUnavailable]:
        """The same for many jobs in one round trip; errors are returned, each in its job's place.

        Raises:
            RedisUnavailable: it did not answer, or refused all. One that fills up refuses some.
        """
        code = self._redis.register_script(script_text("submit"))
        prefix = self.keys.prefix
        with speaking_redis(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for submission in submissions:
                order = submission.order(prefix, start_by_default_s, max_queued)
                code(args=[prefix, *order], client=pipe)
            replies = pipe.execute(raise_on_error=False)
            if replies and all(isinstance(reply, Exception) for reply in replies):
                raise replies[0]
        return [
            self._unavailable(reply)
            if isinstance(reply, Exception)
            else submission.outcome(reply, max_queued)
            for submission, reply in zip(submissions, replies, strict=True)
        ]

    def _unavailable(self, error: Exception) -> errors.RedisUnavailable:
        try:
            with speaking_redis(self._url):
                raise error
        except errors.RedisUnavailable as unavailable:
            return unavailable

    def cancel(self, job_id: str) -> None:
        """Queued jobs end at once; running ones become `canceling` until their worker stops."""
        check_id(job_id)
        if self._run("cancel", job_id) == "":
            raise self._missing(job_id)

    def retry(self, job_id: str) -> Bell:
        """Reopens a failed, canceled or expired job under its id, with the next attempt."""
        check_id(job_id)
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
        check_id(job_id)
        return bool(self._run("purge", job_id))

    def forget(self, job_ids: Sequence[str], *, tag: str | None) -> None:
        """Takes ids whose records are gone out of the index."""
        if job_ids:
            with speaking_redis(self._url):
                self._redis.zrem(self.keys.index(tag), *job_ids)

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
        _, job_id, attempt, request, created_at_s, timeout_s, queued_s, kept, stage = reply
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
            is_last_chance=stage == "queued",
        )

    def renew(self, held: Iterable[tuple[str, str]], *, lease_s: float) -> list[Fence]:
        """Extends the leases of (job id, token) pairs in one round trip."""
        code = script_text("renew")
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
        start: float | None = None,
    ) -> Fence:
        """Says where the attempt is; the answer says whether it should go on.

        Arguments:
            text: instead, the next piece of the answer to this question.
            start: of the segment that the text is about, in seconds.
        """
        steps = (done, total) if total else ("", "")
        piece = (question_id, text, "" if start is None else start)
        reply = self._run("progress", job_id, token, stage, message, *steps, *piece)
        return cast(Fence, reply)

    def checkpoint(self, job_id: str, token: str, fingerprint: str, segment: Segment) -> Fence:
        """Keeps an answered segment for a later attempt; see `segments`."""
        text = segment.model_dump_json()
        reply = self._run("checkpoint", job_id, token, fingerprint, segment.number, text)
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
            "finish", job_id, token, text, result_url, cache_key or "", math.ceil(cache_ttl_s)
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
        self,
        *,
        grace_s: float,
        empty_queues: Sequence[str] = (),
        filled_queues: Sequence[str] = (),
        limit: int = 100,
    ) -> list[Bell]:
        """Requeues or ends what lost its worker, its bell or its time; returns bells to ring.

        Arguments:
            grace_s: bells are rung again only if they have been missing for so long: until then they may
                be on their way.
            empty_queues: those in which the broker holds no message.
            filled_queues: those in which it holds some.
        """
        queues: tuple[str | int, ...] = (len(empty_queues), *empty_queues, *filled_queues)
        reply = self._run("reap", grace_s, limit, *queues)
        return [to_bell(item) for item in reply]

    def pause(self, queue: str, *, paused: bool) -> bool:
        """No job of a paused queue begins; those that run go on. Returns whether that is new."""
        return bool(self._run("pause", queue, int(paused)))

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


def _kept(text: str) -> Result | None:
    try:
        return read(Result, text) if text else None
    except errors.InvalidRequest:  # of a newer release: the model can be asked again
        return None
