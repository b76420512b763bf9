"""The life of a job: its record in Redis and every transition of it.

    queued -> running | canceled | expired
    running -> succeeded | failed | canceling
    running -> queued: its lease ended, retryable failure, given back, or an equal job is running
    canceling -> canceled
    failed | canceled | expired -> queued: `retry`

The record is the job; a Celery message is only a doorbell.
Each transition is one Lua script (`lua/`), atomic, on Redis' clock. A worker's writes
carry the token of its claim, the fence: a write of an older attempt, or after the lease
went to somebody else, is refused as `lost`. The attempt's number would not do: a Redis that
lost its last second counts it twice.

A bell is a wake-up, not a job: it says that jobs wait in a queue. The worker that hears it claims the
jobs whose turn it is until nothing waits. Tenants take turns, each with its own jobs first in, first
out. A few bells of a queue are on their way at most; a claim that leaves work behind rings one more if
there are none, and so does the reaper if they were lost.

This module knows records and bells, and nothing of Celery, videos or models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from videoqa import errors
from videoqa.contract import (
    Failure,
    JobRequest,
    Result,
    Segment,
    WorkerInfo,
    describe_state,
    parse_stored,
)
from videoqa.jobs.cached_object import CachedObject
from videoqa.jobs.connection import translate_redis_errors
from videoqa.jobs.failure_groups import digest_group
from videoqa.jobs.key_quota import KeyQuota
from videoqa.jobs.list_cursor import ListCursor
from videoqa.jobs.reader import LedgerReader
from videoqa.jobs.rings import pack_stages, pack_sums
from videoqa.jobs.selection import DEAD_CODES, find_index_code
from videoqa.jobs.submission import Submission, SubmitResult
from videoqa.jobs.usage import pack_use

__all__ = ["Claim", "ClaimResult", "Ledger", "Progress", "ReapResult", "Unreadable", "WriteReply"]

WriteReply = Literal["ok", "cancel", "lost"]
"""The reply to a fenced write: it counts, it counts but the attempt is to stop, or it was refused."""
FinishReply = Literal["ok", "woken", "cancel", "lost"]
"""The reply to the end of an attempt; `woken`: as `ok`, and jobs came to wait by it."""
DEAD_CHUNK = 1000
"""Ids of failed jobs that are read in one round trip."""
LeadReply = Literal["ok", "cancel", "lost", "follow"]


@dataclass(frozen=True)
class Claim:
    """A job that this worker may run, until the lease ends."""

    job_id: str
    attempt: int
    request: JobRequest
    created_at_s: float
    timeout_s: float
    queued_s: float
    token: str
    """The fencing token: every write of this attempt carries it."""
    kept: Result | None = None
    """The answers of an earlier attempt that could not be stored."""
    traceparent: str = ""
    """The span of the caller, as `TraceContext` parses it; empty: the job has a trace of its own."""
    previous: str = ""
    """The fencing token of the attempt before this one; empty: there was none."""
    claim_s: float = 0.0
    """Seconds that the claim took."""
    is_exclusive: bool = False
    """The last attempt of a job that lost its workers: nothing is to run beside it."""


def _is_retried_once(code: str) -> bool:
    kind = errors.REGISTRY.get(code)
    return kind is not None and kind.retried_once


@dataclass(frozen=True)
class Progress:
    """Progress of an attempt: a step of a stage, or a piece of an answer's text."""

    stage: errors.Stage
    message: str = ""
    done: int = 0
    total: int = 0
    """Steps of the stage; 0: not counted."""
    question_id: str = ""
    text: str = ""
    """The next piece of the answer to this question."""
    start: float | None = None
    """Start of the segment that the text is about, in seconds."""

    def lua_args(self) -> list[str | float]:
        steps: tuple[str | int, ...] = (self.done, self.total) if self.total else ("", "")
        start = "" if self.start is None else self.start
        return [self.stage, self.message, *steps, self.question_id, self.text, start]


@dataclass(frozen=True)
class Unreadable:
    """A claim of a job that this release does not understand."""

    job_id: str
    attempt: int
    token: str
    error: errors.InvalidRequest
    traceparent: str = ""


@dataclass(frozen=True)
class ClaimResult:
    """A claimed job, readable or not, or the reason why there is none."""

    claim: Claim | None = None
    unreadable: Unreadable | None = None
    more_wait: bool = False
    """More jobs wait that this worker may claim, as far as the script knows."""
    ring: Sequence[str] = ()
    """Queues to ring: jobs are left there, and another worker may be idle."""
    must_wait: bool = False
    """The next job is for an idle worker, and this one is reserved for it: it is to claim nothing else, and to
    repeat this claim every few seconds until it is idle."""
    reason: str = ""
    """The reason why no job was claimed, for the log."""

    @property
    def is_claimed(self) -> bool:
        return self.claim is not None or self.unreadable is not None

    @property
    def is_exclusive(self) -> bool:
        """Nothing is to be claimed beside this one."""
        return self.claim is not None and self.claim.is_exclusive


@dataclass(frozen=True)
class ReapResult:
    """The queues that a round of the reaper found in need of a bell."""

    ring: list[str]
    """Queues to ring: their jobs are due, lost their worker, or have had no bell for too long."""
    doubtful: list[str]
    """Queues whose bells may be lost, each once in `grace_s`: see `Ledger.ring_again`."""


class Ledger(LedgerReader):
    """The job records of one prefix in one Redis. Thread-safe."""

    # -- the producer's transitions

    def submit(
        self,
        submission: Submission,
        *,
        start_by_default_s: float,
        max_queued: int = 2**53,
    ) -> SubmitResult:
        """Records a job as queued, unless its idempotency key made one before.

        Raises:
            IdempotencyConflict: the key belongs to another request.
            QueueFull: `max_queued` jobs wait in the request's queue.
            RateLimited: a limit of the submission's API key.
        """
        args = submission.lua_args(self.keys.prefix, start_by_default_s, max_queued)
        result = submission.parse_reply(self._run("submit", *args), max_queued)
        if result.error is not None:
            raise result.error
        return result

    def submit_many(
        self,
        submissions: Sequence[Submission],
        *,
        start_by_default_s: float,
        max_queued: int = 2**53,
    ) -> list[SubmitResult]:
        """Records many jobs in one round trip; errors stand in the results, in the order of the jobs.

        Raises:
            RedisUnavailable: Redis did not answer, or refused all. One that fills up refuses some.
        """
        calls = [
            submission.lua_args(self.keys.prefix, start_by_default_s, max_queued)
            for submission in submissions
        ]
        with translate_redis_errors(self._url):
            replies = self._run_many("submit", calls)
            if replies and all(isinstance(reply, Exception) for reply in replies):
                raise replies[0]
        return [
            SubmitResult(error=self._translate(reply))
            if isinstance(reply, Exception)
            else submission.parse_reply(reply, max_queued)
            for submission, reply in zip(submissions, replies, strict=True)
        ]

    def _translate(self, error: Exception) -> errors.ServiceError:
        try:
            with translate_redis_errors(self._url):
                raise error
        except errors.ServiceError as translated:
            return translated

    def cancel(self, job_id: str) -> None:
        """Ends a queued job at once; a running one becomes `canceling` until its worker stops it.

        Raises:
            JobNotFound, JobExpired, RecordUnreadable
        """
        self._run_on(job_id, "cancel")

    def retry(self, job_id: str, *, key: KeyQuota | None = None) -> str | None:
        """Reopens a failed, canceled or expired job under its id, with the next attempt; returns the queue to ring.

        Arguments:
            key: the API key for which it is counted as a new job.

        Raises:
            RateLimited: the key may submit no job now.
            NotRetryable: the job is queued, running, canceling or succeeded.
            JobNotFound, JobExpired, RecordUnreadable
        """
        reply = self._run_on(job_id, "retry", *(key.lua_args() if key else ("", "")))
        if reply[0] == "limit" and key:
            key.note(reply[2])
            raise key.refuse(reply[1])
        if reply[0] == "state":
            raise errors.NotRetryable(
                f"job {job_id} {describe_state(reply[1])}; only failed, canceled or expired jobs can be "
                "retried"
            )
        if key and len(reply) > 2:
            key.note(reply[2])
        return reply[1] or None

    def dead(self) -> Iterator[str]:
        """Yields the ids of failed jobs, those submitted first in front; their records may be gone."""
        key, after = self.keys.job_list("failed", self.tenant), ListCursor(0.0, "")
        skipped = 0
        while True:
            with translate_redis_errors(self._url):
                found = self._redis.zrangebyscore(
                    key, after.at_s, "+inf", start=skipped, num=DEAD_CHUNK, withscores=True
                )
            cursors = [
                ListCursor(float(at_s), str(job_id)) for job_id, at_s in cast("list[Any]", found)
            ]
            new = [at for at in cursors if at > after]
            yield from (at.job_id for at in new)
            if not cursors:
                return
            skipped = 0 if new else skipped + len(cursors)
            after = max([after, *new])

    def purge(self, job_id: str) -> None:
        """Deletes a final job's record; its result objects stay.

        Raises:
            NotRetryable: the job is queued, running or canceling.
            JobNotFound, JobExpired, RecordUnreadable
        """
        reply = self._run_on(job_id, "purge")
        if reply[0] == "state":
            raise errors.NotRetryable(
                f"job {job_id} {describe_state(reply[1])}; only the record of a job that has ended can be deleted: "
                "cancel it first"
            )

    def forget(self, job_ids: Sequence[str], keys: Sequence[str]) -> None:
        """Removes ids whose records are gone from an index."""
        if not job_ids:
            return
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for key in keys:
                pipe.zrem(key, *job_ids)
            pipe.execute()

    def sweep_dead(self) -> None:
        """Removes ids whose records are gone from the lists of dead letters, some hundred of each."""
        self._run("sweep", self.tenant or "", "", *DEAD_CODES)

    # -- the worker's transitions, each fenced by its claim's token

    def claim(
        self,
        queues: Sequence[str],
        *,
        heard: str = "",
        worker: str,
        lease_s: float,
        token: str,
        is_idle: bool = True,
        tenant_running: int | None = None,
    ) -> ClaimResult:
        """Claims the job whose turn it is in the first of the queues that has one.

        A worker makes its claims one at a time.

        Arguments:
            heard: the queue whose bell led to this claim; empty: none did.
            token: names this very call: the same call repeated after a lost reply gets its claim again,
                another one does not.
            is_idle: nothing runs in the worker, so that it may get an exclusive attempt.
            tenant_running: most jobs of one tenant that run at once, in all workers; its other jobs keep their
                places until one of them ends.
        """
        limit = tenant_running or ""
        begun_s = time.monotonic()
        reply = self._run("claim", heard, worker, lease_s, token, int(is_idle), limit, *queues)
        kind, ring, *reply = reply
        if kind == "wait":
            reason = f"job {reply[0]} is for an idle worker"
            return ClaimResult(ring=ring, must_wait=True, reason=reason)
        if kind == "unreadable":
            self._unreadable.warn(self.keys.job(reply[0]), "it was taken out of its queue")
            return ClaimResult(ring=ring, reason="its record is unreadable")
        if kind == "none":
            return ClaimResult(ring=ring, reason=str(reply[0]))
        (
            job_id,
            attempt,
            request,
            created_at_s,
            timeout_s,
            queued_s,
            kept,
            exclusive,
            more,
            *trace,
        ) = reply
        traceparent, previous = trace
        try:
            parsed = parse_stored(JobRequest, request)
        except errors.InvalidRequest as error:
            unreadable = Unreadable(job_id, int(attempt), token, error, traceparent)
            return ClaimResult(unreadable=unreadable, ring=ring, more_wait=more == "1")
        claim = Claim(
            job_id=job_id,
            attempt=int(attempt),
            request=parsed,
            created_at_s=float(created_at_s),
            timeout_s=float(timeout_s),
            queued_s=max(0.0, float(queued_s)),
            token=token,
            kept=_parse_kept(kept),
            is_exclusive=exclusive == "1",
            traceparent=traceparent,
            previous=previous,
            claim_s=time.monotonic() - begun_s,
        )
        return ClaimResult(claim, ring=ring, more_wait=more == "1")

    def renew(
        self, held: Iterable[tuple[str, str]], *, lease_s: float, is_draining: bool = False
    ) -> list[WriteReply]:
        """Extends the leases of (job id, token) pairs, in one call.

        Arguments:
            is_draining: the worker shuts down, and may be killed: if a lease ends, the attempt is not counted.
        """
        # Packed: a heartbeat's bytes grow with the jobs that the worker runs.
        leases = " ".join(f"{job_id.removeprefix('job_')} {token}" for job_id, token in held)
        if not leases:
            return []
        return cast(list[WriteReply], self._run("renew", lease_s, int(is_draining), leases))

    def report(self, reports: Sequence[tuple[str, str, Progress]]) -> list[WriteReply]:
        """Records where attempts are; each reply says whether the attempt should go on.

        Arguments:
            reports: job id, token of the claim, and progress of each.
        """
        args = [
            arg
            for job_id, token, progress in reports
            for arg in (job_id, token, *progress.lua_args())
        ]
        return cast(list[WriteReply], self._run("report", *args))

    def progress(self, job_id: str, token: str, progress: Progress) -> WriteReply:
        """Records where one attempt is."""
        return self.report([(job_id, token, progress)])[0]

    def checkpoint(
        self,
        job_id: str,
        token: str,
        fingerprint: str,
        segment: Segment,
        *,
        is_streamed: bool = False,
    ) -> WriteReply:
        """Stores an answered segment for a later attempt; see `segments`.

        Arguments:
            is_streamed: its answers become events of the job, once.
        """
        told = [
            text
            for answer in segment.answers
            if is_streamed and answer.text
            for text in (answer.question_id, answer.text)
        ]
        args: list[str | float] = [segment.number, segment.model_dump_json(), segment.start, *told]
        return cast(WriteReply, self._run("checkpoint", job_id, token, fingerprint, *args))

    def finish(
        self,
        job_id: str,
        token: str,
        *,
        result: Result | None,
        result_url: str,
        cache_key: str | None = None,
        cached: CachedObject | None = None,
        cache_ttl_s: float = 0.0,
        counted: Result | None = None,
    ) -> FinishReply:
        """Ends the job as succeeded.

        Arguments:
            result: stored in the record; None: it is too large for that.
            counted: result whose use is counted; None: that of `result`.
            cache_key: key under which later jobs find the `cached` object for `cache_ttl_s`.
        """
        text = result.model_dump_json() if result else ""
        reply = self._run(
            "finish",
            job_id,
            token,
            text,
            result_url,
            cache_key or "" if cached else "",
            math.ceil(cache_ttl_s),
            str(cached or ""),
            pack_use(counted or result),
            pack_sums(counted or result),
            pack_stages(counted or result),
        )
        return cast(FinishReply, reply)

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

        A failure that is retried once is final when the same input led to it in an earlier attempt.

        Arguments:
            kept: the result that could not be stored. The record holds it for the next attempts, which are
                not counted but go on for `keep_s`, and for a `retry`.
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
            find_index_code(failure.code),
            digest_group(failure.code, failure.message),
            int(_is_retried_once(failure.code)),
        )
        return cast(Literal["failed", "retry", "canceled", "lost"], reply)

    def lead(
        self, job_id: str, token: str, key: str, *, asks_anyway: bool = False
    ) -> LeadReply | CachedObject:
        """Makes this attempt the one that asks the model, of all jobs whose answers have this key.

        Arguments:
            asks_anyway: the answer of an earlier job cannot be used.

        Returns:
            The object of an earlier job's result, if there is one: nobody is to ask. `follow` if another job
            asks already: this one is queued again when that one ends, and the attempt is not counted.
        """
        status, *entry = self._run("lead", job_id, token, key, int(asks_anyway))
        if status != "known":
            return cast(LeadReply, status)
        return CachedObject.parse(*entry) or self.lead(job_id, token, key, asks_anyway=True)

    def release(self, job_id: str, token: str, *, kept: Result | None = None) -> str | None:
        """Gives a running job back without counting the attempt, and returns the queue to ring.

        Arguments:
            kept: the result that is not stored yet, for the next attempt.
        """
        text = kept.model_dump_json() if kept else ""
        return cast(str, self._run("release", job_id, token, text)) or None

    def reap(
        self,
        *,
        grace_s: float,
        tenant_running: int | None = None,
        every_s: float = 0.0,
        limit: int = 100,
    ) -> ReapResult:
        """Requeues or ends jobs that lost their worker, their bell or their time.

        Arguments:
            grace_s: time without any bell after which a queue with waiting jobs is rung again: until then
                one may be on its way.
            tenant_running: as in `claim`.
            every_s: nothing is done if the last round, of any caller, is younger than this.
            limit: most jobs of each kind in one round.
        """
        ring, doubtful, unreadable = self._run(
            "reap", grace_s, limit, tenant_running or "", every_s
        )
        for job_id in unreadable:
            self._unreadable.warn(
                self.keys.job(job_id), "the reaper leaves it alone for some minutes"
            )
        return ReapResult(ring=ring, doubtful=doubtful)

    def ring_again(self, queues: Sequence[str]) -> list[str]:
        """Returns which of these queues to ring, in which the broker holds no message."""
        return cast(list[str], self._run("ring_again", *queues)) if queues else []

    def pause(self, queue: str) -> bool:
        """Pauses a queue: none of its jobs begins, and running jobs go on. Returns True if it was not paused."""
        return bool(self._run("pause", queue, 1)[0])

    def resume(self, queue: str) -> tuple[bool, str | None]:
        """Resumes a queue; returns True if it was paused, and the queue if it is to be rung."""
        was_paused, ring = self._run("pause", queue, 0)
        return bool(was_paused), ring or None

    # -- workers

    def announce(self, info: WorkerInfo) -> None:
        """Records that a worker lives; the announcement expires a minute after the last one."""
        member = f"{info.slots} {info.tenant_running or ''} {info.id}" if info.ready else ""
        text = info.model_dump_json(exclude_none=True)
        self._run("announce", info.id, text, member, *info.queues)

    def leave(self, worker_id: str) -> None:
        """Removes a worker's announcement."""
        self._run("announce", worker_id, "", "")


def _parse_kept(text: str) -> Result | None:
    try:
        return parse_stored(Result, text) if text else None
    except errors.InvalidRequest:  # of a newer release: the model can be asked again
        return None
