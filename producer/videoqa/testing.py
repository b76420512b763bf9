"""Clients for the test suites of backend apps, without Redis, workers and models.

    def test_a_caption_is_shown(app):
        app.videoqa = InMemoryClient(answer="a red circle")
        job = app.videoqa.submit(inputs=["s3://b/clip.mp4"], questions=["What is it?"])
        assert app.videoqa.result(job.id).answers[0].text == "a red circle"

`InMemoryClient` is `Client` on an in-memory Redis (`pip install './producer[testing]'`), so jobs run through
the scripts of production. The test plays the worker: `begin`, `say`, `finish`, `fail`. `InMemoryAsyncClient`
is the same for asyncio, on any event loop.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from videoqa import errors
from videoqa.async_client import AsyncClient
from videoqa.backends.redis_backend import RedisBackend
from videoqa.client import Client
from videoqa.contract import (
    Answer,
    AnswerForm,
    Failure,
    GenerationInForce,
    Job,
    JobRequest,
    Question,
    Result,
    Segment,
    Usage,
    read_value,
)
from videoqa.jobs import ENCODING_ERRORS, Claim, Ledger, Progress, SharedReader, queue_name
from videoqa.settings import Settings

if TYPE_CHECKING:
    import redis

__all__ = ["InMemoryAsyncClient", "InMemoryClient"]

WORKER = "in-memory"
LEASE_S = 1e9
POLL_S = 0.01
"""Limit of one blocking read in memory, which nothing can wake."""


class _AnsweringDoorbell:
    """A doorbell that no worker hears: the job is answered at once, if the test has an answer."""

    def __init__(self, answer: Callable[[str], None]) -> None:
        self._answer = answer

    def ring(self, queues: Sequence[str]) -> None:
        for queue in queues:
            self._answer(queue)

    def close(self) -> None:
        pass


class _InMemoryBackend(RedisBackend):
    """The jobs of an in-memory Redis, whose queue messages answer them."""

    def __init__(self, settings: Settings, answer: Callable[[str], None]) -> None:
        self._answer = answer
        super().__init__(settings)

    def _connect(self) -> redis.Redis:
        try:
            import fakeredis
        except ImportError as error:
            raise errors.ConfigurationError(
                "InMemoryClient needs fakeredis; install it in your clone: pip install './producer[testing]'"
            ) from error
        found = fakeredis.FakeRedis(decode_responses=True, encoding_errors=ENCODING_ERRORS)
        return cast("redis.Redis", found)

    def _connect_replica(self) -> None:
        """Has none: there is one Redis, in memory."""

    def _reopen(self) -> None:
        """Keeps the in-memory Redis: the child has a copy of its own."""

    def _make_reader(self) -> SharedReader:
        return SharedReader(self.ledger, lambda: self.redis, poll_s=POLL_S)

    def _make_doorbell(self) -> _AnsweringDoorbell:
        return _AnsweringDoorbell(self._answer)


class InMemoryClient(Client):
    """A client whose jobs are answered by `answer`, or by the test."""

    def __init__(
        self,
        *,
        answer: str | Callable[[JobRequest, Question], str] | None = None,
        settings: Settings | None = None,
        tenant: str | None = None,
    ) -> None:
        """Makes a client with an empty Redis of its own.

        Arguments:
            tenant: see `Client`.
            answer: the answer to each question, given as soon as its job is submitted; if it raises an
                `errors.JobError`, that is the job's failure. None: jobs wait for `finish`.
        """
        self._answer = answer
        super().__init__(settings=settings or Settings(), tenant=tenant)

    def _make_backend(self) -> RedisBackend:
        return _InMemoryBackend(self.settings, self._answer_queue)

    @property
    def _memory(self) -> RedisBackend:
        return cast("RedisBackend", self._backend)

    @property
    def _ledger(self) -> Ledger:
        return self._memory.ledger

    def _answer_queue(self, queue: str) -> None:
        if self._answer is not None:
            while claim := self._claim(queue):
                self._answer_job(claim.job_id, self._answer)

    def _claim(self, queue: str) -> Claim | None:
        """Claims the next job of the queue; None: nothing waits, or the queue is paused."""
        token = secrets.token_hex(8)
        return self._ledger.claim(
            [queue], heard=queue, worker=WORKER, lease_s=LEASE_S, token=token
        ).claim

    def _answer_job(self, job_id: str, answer: str | Callable[[JobRequest, Question], str]) -> None:
        request = self._ledger.request(job_id)
        try:
            texts = [
                answer if isinstance(answer, str) else answer(request, question)
                for question in request.questions
            ]
        except errors.JobError as error:
            self.fail(job_id, error.code, error.message, stage=error.stage)
        else:
            self.finish(job_id, *texts)

    def begin(self, job_id: str) -> Job:
        """Starts the job, and those whose turn comes before it, as if there were enough workers."""
        job = self.get(job_id)
        self._ledger.reap(grace_s=LEASE_S)  # requeues jobs that are due after a failed attempt
        queue = queue_name(self.settings.prefix, job.model, job.priority)
        while self.get(job_id).state == "queued" and self._claim(queue):
            pass
        return self.get(job_id)

    def say(self, job_id: str, text: str, *, question_id: str = "q1") -> None:
        """Publishes the next piece of an answer, for readers of `events` and `stream`."""
        self._ensure_running(job_id)
        self._ledger.progress(
            job_id,
            self._read_token(job_id),
            Progress("generating", question_id=question_id, text=text),
        )

    def finish(self, job_id: str, *texts: str) -> Job:
        """Ends the job as succeeded, with one text for each question.

        In a job in segments the texts are about its only segment, and the first one is also the summary,
        if the job asks for one.
        """
        job = self._ensure_running(job_id)
        request = self._ledger.request(job_id)
        if len(texts) != len(request.questions):
            raise errors.InvalidRequest(
                f"got {len(texts)} answers, expected {len(request.questions)}, one for each question"
            )
        now = datetime.now(UTC)
        answers = tuple(
            _make_answer(question.id, question.text, text, request.get_form(question))
            for question, text in zip(request.questions, texts, strict=True)
        )
        segments: tuple[Segment, ...] = ()
        if request.sampling.method == "segment":
            end = request.sampling.longest_s
            segments = (Segment(number=0, start=0.0, end=end, answers=answers, frames=()),)
            summary = request.summary
            answers = (_make_answer("summary", summary, texts[0]),) if summary is not None else ()
        result = Result(
            job_id=job_id,
            answers=answers,
            segments=segments,
            frames=(),
            sources=(),
            model=request.model or WORKER,
            sampling=request.sampling,
            generation=GenerationInForce.of(request.generation),
            usage=Usage(),
            attempt=job.attempt,
            created_at=job.created_at,
            finished_at=now,
            custom_id=request.custom_id,
            metadata=request.metadata,
        )
        url = f"memory://{job_id}.json"
        self._ledger.finish(job_id, self._read_token(job_id), result=result, result_url=url)
        return self.get(job_id)

    def fail(
        self,
        job_id: str,
        code: str = "model_error",
        message: str = "made to fail",
        *,
        stage: errors.Stage | None = "generating",
        retryable: bool = False,
    ) -> Job:
        """Ends the attempt as failed; with `retryable` the next one may begin at once."""
        job = self._ensure_running(job_id)
        failure = Failure(
            code=code, message=message, stage=stage, retryable=retryable, attempt=job.attempt
        )
        self._ledger.fail(job_id, self._read_token(job_id), failure, delay_s=0)
        return self.get(job_id)

    def expire(self, job_id: str) -> None:
        """Removes a final job's record, as if its `result_ttl_s` were over."""
        self._memory.redis.delete(self._ledger.keys.job(job_id), self._ledger.keys.events(job_id))

    def _ensure_running(self, job_id: str) -> Job:
        job = self.get(job_id)
        return self.begin(job_id) if job.state == "queued" else job

    def _read_token(self, job_id: str) -> str:
        return str(self._memory.redis.hget(self._ledger.keys.job(job_id), "token"))


class InMemoryAsyncClient(AsyncClient):
    """`InMemoryClient` for asyncio; the test plays the worker by the same methods, to be awaited.

    A test that is no coroutine, such as one of an app behind a web framework's test client, plays it by `memory`.
    """

    def __init__(
        self,
        memory: InMemoryClient | None = None,
        *,
        answer: str | Callable[[JobRequest, Question], str] | None = None,
        settings: Settings | None = None,
        tenant: str | None = None,
    ) -> None:
        """Makes a client of the jobs in `memory`, or with an empty Redis of its own.

        Arguments:
            answer: see `InMemoryClient`.
            tenant: see `Client`.
        """
        self.memory = memory or InMemoryClient(answer=answer, settings=settings, tenant=tenant)
        """The jobs of this client, as a client that blocks."""
        super().__init__()

    def _make_client(self, *_: object) -> Client:
        return self.memory

    async def begin(self, job_id: str) -> Job:
        """See `InMemoryClient.begin`."""
        return await self._call(self.memory.begin, job_id)

    async def say(self, job_id: str, text: str, *, question_id: str = "q1") -> None:
        """See `InMemoryClient.say`."""
        await self._call(self.memory.say, job_id, text, question_id=question_id)

    async def finish(self, job_id: str, *texts: str) -> Job:
        """See `InMemoryClient.finish`."""
        return await self._call(self.memory.finish, job_id, *texts)

    async def fail(
        self,
        job_id: str,
        code: str = "model_error",
        message: str = "made to fail",
        *,
        stage: errors.Stage | None = "generating",
        retryable: bool = False,
    ) -> Job:
        """See `InMemoryClient.fail`."""
        return await self._call(
            self.memory.fail, job_id, code, message, stage=stage, retryable=retryable
        )

    async def expire(self, job_id: str) -> None:
        """See `InMemoryClient.expire`."""
        await self._call(self.memory.expire, job_id)


def _make_answer(
    question_id: str, question: str, text: str, form: AnswerForm | None = None
) -> Answer:
    return Answer(
        question_id=question_id,
        question=question,
        text=text,
        finish_reason="stop",
        input_tokens=0,
        output_tokens=len(text.split()),
        value=None if form is None else read_value(form, text),
    )
