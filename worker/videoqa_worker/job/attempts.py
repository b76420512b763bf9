"""Attempts: claim a job, run it under its lease, finish or fail it.

The claim decides which job that is, if any: the one whose turn it is in the worker's queues.
An answer is not thrown away because the object store is away: then the record keeps it, and the
next attempt only stores it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from videoqa import errors
from videoqa.contract import JobRequest, Result, TextPiece, redact_url, to_datetime
from videoqa.jobs import CachedObject, Claim, ClaimResult, Unreadable
from videoqa.storage import ObjectStore
from videoqa.telemetry.log_context import job_context
from videoqa.telemetry.trace_context import find_trace_id
from videoqa_worker import log_events
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.checkpoints import RecordCheckpoints
from videoqa_worker.job.claims import Claims, HeldJob
from videoqa_worker.job.context import AttemptContext, JobControl, Progress
from videoqa_worker.job.failure import make_failure, translate_error
from videoqa_worker.job.leases import LeaseKeeper
from videoqa_worker.job.pipeline import Pipeline
from videoqa_worker.job.progress import ProgressWriter
from videoqa_worker.job.result_object import (
    build_result,
    build_url,
    check_output_free,
    reuse_result,
    store_result,
)
from videoqa_worker.job.sheet import SheetKeeper
from videoqa_worker.job.tally import AttemptTally, ObserveAttempt, Outcome
from videoqa_worker.job.trace import begin_trace
from videoqa_worker.settings import WorkerSettings

__all__ = ["Attempts", "backoff_s"]

log = logging.getLogger(__name__)


def backoff_s(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Exponential with full jitter (AWS Architecture Blog, 2015): jobs that failed together spread out."""
    return random.uniform(0, min(cap_s, base_s * 2 ** (attempt - 1)))  # noqa: S311


class Attempts:
    """Runs the attempts of one worker. Thread-safe."""

    def __init__(
        self,
        settings: WorkerSettings,
        claims: Claims,
        leases: LeaseKeeper,
        progress: ProgressWriter,
        pipeline: Pipeline,
        objects: ObjectStore,
        cache: AnswerCache,
        sheets: SheetKeeper,
        observers: Sequence[ObserveAttempt] = (),
    ) -> None:
        """
        Arguments:
            observers: called with the tally of each attempt that has ended.
        """
        self._settings = settings
        self._claims = claims
        self._leases = leases
        self._progress = progress
        self._pipeline = pipeline
        self._objects = objects
        self._cache = cache
        self._sheets = sheets
        self._observers = tuple(observers)

    def drain(self) -> None:
        """Claims nothing more; jobs that run may finish, under leases that are short from now on."""
        self._claims.drain()
        self._leases.drain()

    def close(self) -> None:
        """Gives every job back, those that start from now on too.

        No longer waits for a Redis that is away: the leases end by themselves.
        """
        self.break_off(_stopping())

    def break_off(self, error: errors.JobError) -> None:
        """Ends the running attempts with this error; those that start from now on are given back."""
        self._claims.close()
        for control in self._leases.list_held():
            control.stop(error)

    @property
    def is_closing(self) -> bool:
        """Jobs are given back instead of run."""
        return self._claims.is_closing

    @property
    def may_claim(self) -> bool:
        """This worker neither ends nor is reserved for an exclusive attempt."""
        return self._claims.may_claim

    def process(
        self,
        heard: str = "",
        on_answer: Callable[[ClaimResult | None], None] = lambda result: None,
    ) -> bool:
        """Claims the job whose turn it is and runs the attempt.

        Never raises for a job's sake: its failures go to its record. Returns True if more jobs may wait that no
        bell is to be expected for.

        Arguments:
            heard, on_answer: as in `Claims.claiming`.
        """
        try:
            with self._claims.claiming(heard, on_answer) as result:
                if result is None or not result.is_claimed:
                    reason = result.reason if result else "this worker is reserved"
                    log_events.NO_JOB.log(log, reason=reason)
                    return False
                return self._start(result) or result.more_wait
        except errors.RedisUnavailable as error:  # closing: nobody waits for Redis any more
            log_events.CLAIMS_END.log(log, error=error)
            return False

    def _start(self, result: ClaimResult) -> bool:
        """Runs the claimed job under its lease; returns True if other jobs may have come to wait by its end."""
        if result.unreadable is not None:  # of a newer release; its workers may know it
            tally = AttemptTally()
            with self._log_context(result.unreadable):
                self._fail(result.unreadable, result.unreadable.error, tally, retryable=True)
            self._note_end(tally)
            return True
        claim = result.claim
        if claim is None:
            return True
        with self._log_context(claim, claim.request):
            return self._run_under_lease(claim)

    def _log_context(
        self, job: Claim | Unreadable, request: JobRequest | None = None
    ) -> AbstractContextManager[None]:
        """Gives all lines of a block the fields of this attempt."""
        texts = []
        if request is not None:
            found = [(each.text, each.system, each.refine) for each in request.full_questions]
            texts = [
                text or "" for each in (*found, (request.summary, request.system)) for text in each
            ]
        return job_context(
            job_id=job.job_id,
            attempt=job.attempt,
            model=self._settings.model,
            tenant=request.tenant if request else None,
            trace_id=find_trace_id(job.job_id, job.traceparent),
            texts=texts,
        )

    def _run_under_lease(self, claim: Claim) -> bool:
        """Runs the job under its lease; returns as `_start` does."""
        control = JobControl(claim.job_id, claim.attempt, claim.timeout_s, token=claim.token)
        trace = begin_trace(claim, self._settings.model)
        with self._leases.holding(control), trace.running():
            if self.is_closing:  # after it was held, so that `close` cannot miss it
                control.stop(_stopping())
            log_events.JOB_STARTED.log(log, queued_s=round(claim.queued_s, 4))
            job = HeldJob(self._claims, claim, control, self._progress, trace)
            try:
                has_woken = self._run(job)
            finally:
                self._note_end(job.tally)
            self._progress.drop(control)
        return has_woken

    def _note_end(self, tally: AttemptTally) -> None:
        tally.end()
        for observe in self._observers:
            observe(tally)

    def _run(self, job: HeldJob) -> bool:
        """Answers and stores; whatever goes wrong ends in the job's record. Returns as `_start` does."""
        claim = job.claim
        result: Result | None = None
        try:
            result = self._answer(job)
            if result is None:
                job.tally.outcome = "followed"
                log_events.JOB_FOLLOWS.log(log)
                return True
            job.trace.note(
                cached=result.cached,
                frames=result.usage.frames,
                bytes_fetched=result.usage.bytes_fetched,
            )
            job.report(Progress("storing"))
            with job.trace.stage("store"):
                return self._finish(job, result)
        except errors.LeaseLost as error:
            job.trace.note_error(error.code)
            log_events.JOB_LOST.log(log, error=error)
        except errors.WorkerStopping as error:
            job.trace.note_error(error.code)
            self._give_back(job, result)
        except errors.RedisUnavailable as error:  # closing: nobody waits for Redis any more
            job.trace.note_error(error.code)
            log_events.LEASE_LEFT.log(log, error=error)
        except errors.JobError as error:
            job.trace.note_error(error.code)
            if isinstance(error, errors.EngineStopped) and not error.had_begun:
                self._give_back(job, result)
            else:
                self._fail(claim, error, job.tally, kept=result)
        except Exception as error:  # noqa: BLE001 - it is logged
            job.trace.note_error(errors.InternalError.code)
            log_events.JOB_ERROR.log(log, exc_info=True)
            self._fail(claim, translate_error(error), job.tally)
        return True

    def _answer(self, job: HeldJob) -> Result | None:
        """Returns the answers of an earlier attempt, of an earlier job, or of the model.

        None if another job asks the same: this one is queued behind it.
        """
        claim, control = job.claim, job.control
        control.check()
        if claim.kept is not None:
            return claim.kept.model_copy(update={"attempt": claim.attempt})
        check_output_free(self._objects, self._url(claim), claim)
        sheet = self._sheets.begin(claim)
        context = AttemptContext(
            claim.request, control, job.report, sheet, tally=job.tally, trace=job.trace
        )
        # A second attempt runs alone in its batch: if this job breaks it again, only it is convicted.
        with self._pipeline.open(context, own_batch=claim.attempt > 1) as opened:
            key = self._cache.make_key(claim.request, opened.sampling, opened.versions)
            found = self._cache.look_up(job, key.lookup)
            if key.lookup is not None and claim.request.cache == "use" and not found.must_follow:
                job.tally.cache = "miss" if found.known is None else "hit"
            if found.must_follow:
                return None
            if found.known is not None:
                _stream_known(context, found.known)
                return reuse_result(claim, found.known, sheet.copy(found.known))
            draft = self._pipeline.answer(opened, RecordCheckpoints(job, key.fingerprint))
        return build_result(
            claim,
            draft,
            sheet.end(),
            model=self._cache.model,
            revision=self._cache.revision,
            cache_key=key.lookup,
        )

    def _finish(self, job: HeldJob, result: Result) -> bool:
        """Stores the result object, then ends the job as succeeded. Returns as `_start` does."""
        claim = job.claim
        url = self._url(claim)
        begun = time.monotonic()
        try:
            data = store_result(self._objects, url, result, claim.request, job.control)
        except errors.LeaseLost as error:
            job.check_lease()
            raise errors.OutputConflict(
                f"{url} holds a later attempt of this job than any that was begun: another program wrote it; "
                "delete it, and retry the job",
                param="output",
            ) from error
        storing_s = round(time.monotonic() - begun, 4)
        job.tally.seconds["storing"] = storing_s
        usage = result.usage.model_copy(update={"storing_s": storing_s})
        result = result.model_copy(update={"usage": usage, "finished_at": datetime.now(UTC)})
        is_small = len(result.model_dump_json()) <= self._settings.inline_result_bytes
        status = self._claims.repeat(
            lambda: self._claims.ledger.finish(
                claim.job_id,
                claim.token,
                result=result if is_small else None,
                result_url=url,
                cache_key=None if result.cached else result.cache_key,
                cached=CachedObject.of(url, data),
                cache_ttl_s=self._cache.ttl_s,
                counted=result,
            )
        )
        ends: dict[str, Outcome] = {"cancel": "canceled", "lost": "lost"}
        job.tally.outcome = ends.get(status, "succeeded")
        if status == "cancel":
            log_events.JOB_CANCELED.log(log)
        elif status == "lost":
            log_events.RESULT_LOST.log(log)
        else:
            log_events.JOB_SUCCEEDED.log(log, **_describe(job, result))
        return status != "ok"

    def _give_back(self, job: HeldJob, result: Result | None) -> None:
        claim = job.claim
        self._claims.give_back(claim, kept=result)
        job.tally.outcome = "given_back"
        log_events.JOB_GIVEN_BACK.log(log)

    def _fail(
        self,
        job: Claim | Unreadable,
        error: errors.VideoQAError,
        tally: AttemptTally,
        *,
        retryable: bool | None = None,
        kept: Result | None = None,
    ) -> None:
        """Ends the attempt with this error; the job fails, or waits for its next attempt."""
        failure = make_failure(error, job.attempt, retryable=retryable)
        delay_s = backoff_s(
            job.attempt, base_s=self._settings.retry_base_s, cap_s=self._settings.retry_cap_s
        )
        status = self._claims.repeat(
            lambda: self._claims.ledger.fail(
                job.job_id,
                job.token,
                failure,
                delay_s=delay_s,
                kept=kept,
                keep_s=self._settings.store_patience_s,
            )
        )
        ends: dict[str, Outcome] = {"failed": "failed", "retry": "retried", "canceled": "canceled"}
        tally.outcome = ends.get(status, "lost")
        if status in ("failed", "retry"):
            tally.code = error.code
        if isinstance(error, errors.JobCanceled):
            log_events.JOB_CANCELED.log(log)
        else:
            log_events.ATTEMPT_FAILED.log(log, verdict=status, code=error.code, error=error)

    def _url(self, claim: Claim) -> str:
        template = claim.request.output or self._settings.output
        return build_url(template, claim.job_id, claim.request, to_datetime(claim.created_at_s))


def _stream_known(context: AttemptContext, known: Result) -> None:
    """Reports the text of known answers, where the request asks for a stream."""
    if context.request.stream:
        context.report(
            *(
                Progress(
                    "generating", question_id=piece.question_id, text=piece.text, start=piece.start
                )
                for piece in TextPiece.of_result(known, heard={})
            )
        )


def _stopping() -> errors.WorkerStopping:
    return errors.WorkerStopping("this worker shuts down")


def _describe(job: HeldJob, result: Result) -> dict[str, Any]:
    """Returns the fields of what was asked and what it cost, without spaces in the texts."""
    request, usage = job.claim.request, result.usage
    first = quote(redact_url(request.inputs[0].url), safe=":/%~@!$&'()*+,;=[]")
    return {
        "name": quote(result.model, safe="/:@"),
        "inputs": len(request.inputs),
        "first_input": first[:200],
        "questions": len(request.questions),
        "frames": usage.frames,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "seconds": round(time.monotonic() - job.tally.begun_s, 4),
        "cached": "yes" if result.cached else "no",
    }
