"""Attempt: what a bell leads to. Claim the job, run it under its lease, finish or fail it.

The claim decides whether there is anything to do, and what: the job whose turn it is in the
bell's queue. Every write to the record is fenced, and repeated until Redis answers: an answer
that took a GPU's time is not thrown away because Redis restarts, nor because the object store
is away: then the record keeps it, and the next attempt only stores it.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from videoqa import errors
from videoqa.contract import Failure, Result, Sampling, Segment, TextPiece, Usage, to_datetime
from videoqa.jobs import Bell, Claim, Ledger, Unreadable
from videoqa.storage import ObjectStore
from videoqa_worker.job.answer_cache import AnswerCache, KnownAlready, WaitsForAnother
from videoqa_worker.job.cancellation import JobControl
from videoqa_worker.job.draft import Outcome, Report, SourceVersion
from videoqa_worker.job.leases import LeaseKeeper, obey
from videoqa_worker.job.pipeline import Pipeline
from videoqa_worker.job.result_object import result_url, store
from videoqa_worker.job.solitude import Solitude
from videoqa_worker.settings import WorkerSettings

__all__ = ["Attempts", "backoff_s"]

log = logging.getLogger(__name__)
T = TypeVar("T")

KEPT_BYTES = 16 << 20
"""JSON of a job's answered segments in its record: 8 KB each for `max_segments`. Answers of 4,096
tokens to 64 questions would be 2 GB; what is beyond this is asked again by the next attempt."""


def backoff_s(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Exponential with full jitter (AWS Architecture Blog, 2015): jobs that failed together spread out."""
    return random.uniform(0, min(cap_s, base_s * 2 ** (attempt - 1)))  # noqa: S311


class Attempts:
    """Runs the attempts of one worker. Thread-safe."""

    def __init__(
        self,
        settings: WorkerSettings,
        ledger: Ledger,
        leases: LeaseKeeper,
        pipeline: Pipeline,
        objects: ObjectStore,
        cache: AnswerCache,
        ring: Callable[[Bell], None],
        *,
        worker_id: str,
        model: str,
        revision: str | None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._leases = leases
        self._pipeline = pipeline
        self._objects = objects
        self._cache = cache
        self._ring = ring
        self._worker_id = worker_id
        self._model = model
        self._revision = revision
        self._closing = threading.Event()
        self._solitude = Solitude()

    def close(self) -> None:
        """Gives every job back, those too that start from now on, and no longer waits for a
        Redis that is away: the leases end by themselves."""
        self.break_off(_stopping())

    def break_off(self, error: errors.JobError) -> None:
        """Ends the running attempts with this error; those that start from now on are given back."""
        self._closing.set()
        for control in self._leases.held():
            control.stop(error)

    @property
    def closing(self) -> bool:
        """Whether jobs are given back instead of run."""
        return self._closing.is_set()

    def answer(self, bell: Bell) -> bool:
        """Never raises for a job's sake: its failures go to its record. False: the bell is for another
        worker, since a job runs here that must be alone."""
        if not self._solitude.enter():
            return False
        try:
            self._run(bell)
        finally:
            self._solitude.leave()
        return True

    def _run(self, bell: Bell) -> None:
        token = secrets.token_hex(8)
        claim = self._until_redis_answers(
            lambda: self._ledger.claim(
                bell, worker=self._worker_id, lease_s=self._settings.lease_s, token=token
            )
        )
        if isinstance(claim, str):
            log.info("bell dropped: %s", claim, extra=_tags(bell.job_id, bell.attempt))
            return
        if isinstance(claim, Unreadable):  # of a newer release; its workers may know it
            self._fail(claim, token, claim.error, retryable=True)
            return
        control = JobControl(claim.job_id, claim.attempt, claim.timeout_s, token=token)
        with self._leases.holding(control):
            if self._closing.is_set():  # after it was held, so that `close` cannot miss it
                control.stop(_stopping())
            self._carry(claim, control)

    def _carry(self, claim: Claim, control: JobControl) -> None:
        tags = _tags(claim.job_id, claim.attempt)
        log.info("job started", extra=tags)
        answered: Result | None = None
        try:
            with self._beside_others(claim, control):
                answered = self._answered(claim, control)
                self._finish(claim, control, answered)
        except WaitsForAnother:
            log.info("another job asks the same; this one waits for it", extra=tags)
        except errors.LeaseLost as error:
            log.warning("%s", error, extra=tags)
        except errors.WorkerStopping:
            self._give_back(claim, answered)
        except errors.RedisUnavailable as error:  # closing: nobody waits for Redis any more
            log.warning("%s; the job's lease ends by itself", error, extra=tags)
        except errors.JobError as error:
            if isinstance(error, errors.EngineStopped) and not error.had_begun:
                self._give_back(claim, answered)
            else:
                self._fail(claim, claim.token, error, kept=answered)
        except Exception as error:
            log.exception("job met an unexpected error", extra=tags)
            unexpected = errors.InternalError(f"{type(error).__name__}: {error}")
            self._fail(claim, claim.token, unexpected)

    @contextmanager
    def _beside_others(self, claim: Claim, control: JobControl) -> Iterator[None]:
        """Or alone, if only so can be told whether this job ends its workers. It lived through its answers
        if they are there."""
        if not claim.is_last_chance or claim.kept is not None:
            yield
            return

        def check() -> None:
            try:
                control.check()
            except errors.EngineStopped as error:  # not by this job, which only waits
                raise _stopping() from error

        control.stop_clock()
        with self._solitude.alone(check):
            control.start_clock()
            yield

    def _answered(self, claim: Claim, control: JobControl) -> Result:
        """The model's answers, asked now or by an attempt that could not store them."""
        control.check()
        self._objects.check(self._url(claim))
        report = self._reporter(claim, control)
        if claim.kept is not None:
            result = claim.kept.model_copy(update={"attempt": claim.attempt})
        else:
            result = self._asked(claim, control, report)
        report("storing")
        return result

    def _asked(self, claim: Claim, control: JobControl, report: Report) -> Result:
        """The model's answers, or those of an earlier job that asked the same."""
        key: str | None = None
        kept = _Kept(self._ledger, claim, control, self._until_redis_answers)

        def opened(sampling: Sampling, versions: Sequence[SourceVersion]) -> None:
            nonlocal key
            key = self._cache.key(claim.request, sampling, versions)
            kept.fingerprint = self._cache.fingerprint(claim.request, sampling, versions)
            if key is not None and claim.request.cache == "use":
                self._look(claim, control, key)

        # A second attempt runs alone: if this job breaks its batch, only it is convicted.
        alone = claim.attempt > 1
        try:
            outcome = self._pipeline.run(
                claim.request, control, report, alone=alone, opened=opened, checkpoints=kept
            )
        except KnownAlready as known:
            return self._reused(claim, known.result, report)
        return self._result(claim, outcome, key)

    def _look(self, claim: Claim, control: JobControl, key: str) -> None:
        """Ends the attempt where the model need not be asked."""
        known = self._cache.find(key)
        if known is not None:
            raise KnownAlready(known)
        answer = self._until_redis_answers(
            lambda: self._ledger.lead(claim.job_id, claim.token, key)
        )
        if answer == "follow":
            raise WaitsForAnother
        obey(control, answer)
        control.check()

    def _reused(self, claim: Claim, known: Result, report: Report) -> Result:
        """An earlier job's answers as this one's, which cost it no tokens."""
        if claim.request.stream:
            for piece in TextPiece.of_result(known, heard={}):
                report(
                    "generating", question_id=piece.question_id, text=piece.text, start=piece.start
                )
        return known.model_copy(
            update={
                "cached": True,
                "usage": Usage(queued_s=round(claim.queued_s, 4)),
                **self._named(claim),
            }
        )

    def _reporter(self, claim: Claim, control: JobControl) -> Report:
        def report(
            stage: errors.Stage,
            *,
            message: str = "",
            done: int = 0,
            total: int = 0,
            question_id: str = "",
            text: str = "",
            start: float | None = None,
        ) -> None:
            control.check()
            answer = self._until_redis_answers(
                lambda: self._ledger.progress(
                    claim.job_id,
                    claim.token,
                    stage,
                    message=message,
                    done=done,
                    total=total,
                    question_id=question_id,
                    text=text,
                    start=start,
                )
            )
            obey(control, answer)
            control.check()

        return report

    def _finish(self, claim: Claim, control: JobControl, result: Result) -> None:
        url = self._url(claim)
        begun = time.monotonic()
        store(self._objects, url, result, control)
        storing_s = round(time.monotonic() - begun, 4)
        usage = result.usage.model_copy(update={"storing_s": storing_s})
        result = result.model_copy(update={"usage": usage, "finished_at": datetime.now(UTC)})
        small = len(result.model_dump_json()) <= self._settings.inline_result_bytes
        answer = self._until_redis_answers(
            lambda: self._ledger.finish(
                claim.job_id,
                claim.token,
                result=result if small else None,
                result_url=url,
                cache_key=None if result.cached else result.cache_key,
                cache_ttl_s=self._cache.ttl_s,
            )
        )
        log.info("job %s", {"ok": "succeeded", "cancel": "canceled"}.get(answer, "lost"),
                 extra=_tags(claim.job_id, claim.attempt))  # fmt: skip

    def _url(self, claim: Claim) -> str:
        template = claim.request.output or self._settings.output
        return result_url(template, claim.job_id, claim.request, to_datetime(claim.created_at_s))

    def _named(self, claim: Claim) -> dict[str, Any]:
        """What of a result is this job's own."""
        return {
            "job_id": claim.job_id,
            "attempt": claim.attempt,
            "created_at": to_datetime(claim.created_at_s),
            "finished_at": datetime.now(UTC),
            "custom_id": claim.request.custom_id,
            "metadata": claim.request.metadata,
        }

    def _result(self, claim: Claim, outcome: Outcome, key: str | None) -> Result:
        return Result(
            answers=outcome.answers,
            segments=tuple(outcome.segments),
            frames=tuple(outcome.frames),
            sources=tuple(outcome.sources),
            model=self._model,
            model_revision=self._revision,
            sampling=outcome.sampling,
            generation=claim.request.generation,
            usage=outcome.usage(claim.queued_s),
            warnings=tuple(outcome.warnings),
            cache_key=key,
            **self._named(claim),
        )

    def _give_back(self, claim: Claim, answered: Result | None) -> None:
        bell = self._until_redis_answers(
            lambda: self._ledger.release(claim.job_id, claim.token, kept=answered)
        )
        if bell is not None:
            with suppress(errors.RedisUnavailable):  # the reaper of another worker rings
                self._ring(bell)
        log.info("job given back", extra=_tags(claim.job_id, claim.attempt))

    def _fail(
        self,
        job: Claim | Unreadable,
        token: str,
        error: errors.VideoQAError,
        *,
        retryable: bool | None = None,
        kept: Result | None = None,
    ) -> None:
        failure = Failure(
            code=error.code,
            message=error.message[:2000],
            stage=error.stage,
            retryable=error.retryable if retryable is None else retryable,
            attempt=job.attempt,
            param=error.param,
        )
        delay_s = backoff_s(
            job.attempt, base_s=self._settings.retry_base_s, cap_s=self._settings.retry_cap_s
        )
        answer = self._until_redis_answers(
            lambda: self._ledger.fail(
                job.job_id,
                token,
                failure,
                delay_s=delay_s,
                kept=kept,
                keep_s=self._settings.store_patience_s,
            )
        )
        tags = _tags(job.job_id, job.attempt)
        log.warning("attempt ended (%s): %s: %s", answer, error.code, error, extra=tags)

    def _until_redis_answers(self, call: Callable[[], T]) -> T:
        """Repeats an idempotent call while Redis is away; each is fenced or carries a token."""
        delay_s = 0.1
        while True:
            try:
                return call()
            except errors.RedisUnavailable as error:
                if self._closing.wait(delay_s):
                    raise
                log.warning("waiting for Redis: %s", error)
                delay_s = min(2.0, delay_s * 2)


class _Kept:
    """The segments of one claim that the record keeps; see `segments.Checkpoints`."""

    def __init__(
        self,
        ledger: Ledger,
        claim: Claim,
        control: JobControl,
        until_redis_answers: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._ledger, self._claim, self._control = ledger, claim, control
        self._until_redis_answers = until_redis_answers
        self.fingerprint = ""
        """Of what is asked; what was kept under another one is not used."""
        self._room_bytes = KEPT_BYTES

    def load(self) -> list[Segment]:
        found: list[Segment] = self._until_redis_answers(
            lambda: self._ledger.segments(self._claim.job_id, self.fingerprint)
        )
        self._room_bytes -= sum(len(segment.model_dump_json()) for segment in found)
        return [self._asked(segment, unsaid=False) for segment in found]

    def save(self, segment: Segment) -> None:
        claim = self._claim
        bare = self._asked(segment, unsaid=True)
        self._room_bytes -= len(bare.model_dump_json())
        if self._room_bytes < 0:  # nor the later ones: behind a gap they would be of no use
            return
        answer = self._until_redis_answers(
            lambda: self._ledger.checkpoint(claim.job_id, claim.token, self.fingerprint, bare)
        )
        obey(self._control, answer)
        self._control.check()

    def _asked(self, segment: Segment, *, unsaid: bool) -> Segment:
        """With or without the questions' texts: the record has them already, as its request."""
        answers = tuple(
            answer.model_copy(update={"question": "" if unsaid else question.text})
            for question, answer in zip(self._claim.request.questions, segment.answers, strict=True)
        )
        return segment.model_copy(update={"answers": answers})


def _stopping() -> errors.WorkerStopping:
    return errors.WorkerStopping("this worker shuts down")


def _tags(job_id: str, attempt: int) -> dict[str, object]:
    return {"job_id": job_id, "attempt": attempt}
