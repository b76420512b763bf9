"""Timeline: every attempt of a job with worker, seconds by stage, failure and next step, also after retries."""

from __future__ import annotations

from typing import Any

import redis
from support.worker import begin, result_of

from videoqa import Client
from videoqa.contract import Failure, Usage
from videoqa.jobs import Ledger, Progress

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


def test_each_attempt_keeps_its_worker_stages_and_failure(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    job_id = client.submit(ASKED).id
    assert client.timeline(job_id).attempts == ()
    assert client.timeline(job_id).job.waiting_for is not None
    # 1: fails, and is retried
    claim = begin(ledger, "t1")
    ledger.progress(job_id, "t1", Progress("sampling"))
    ledger.progress(job_id, "t1", Progress("generating"))
    (running,) = client.timeline(job_id).attempts
    assert (running.outcome, running.ended_at) == ("running", None)
    assert list(running.stages) == ["fetching", "sampling", "generating"]
    failure = Failure(code="source_timeout", message="slow", retryable=True, attempt=1)
    ledger.fail(job_id, claim.token, failure, delay_s=0)
    ledger.reap(grace_s=60)
    # 2: given back
    ledger.release(job_id, begin(ledger, "t2").token)
    # 3: fails for good, and is retried on request
    last = failure.model_copy(update={"code": "model_error", "retryable": False, "attempt": 3})
    ledger.fail(job_id, begin(ledger, "t3").token, last, delay_s=0)
    client.retry(job_id)
    assert [each.outcome for each in client.timeline(job_id).attempts] == [
        "failed", "returned", "failed",
    ]  # fmt: skip
    # 4: the worker vanishes
    begin(ledger, "t4", lease_s=0)
    ledger.reap(grace_s=60)
    # 5: succeeds
    claim = begin(ledger, "t5")
    usage = Usage(fetching_s=1.5, sampling_s=0.25, generating_s=2.0, storing_s=0.125)
    result = result_of(claim, q1="a cat").model_copy(update={"usage": usage})
    ledger.finish(job_id, "t5", result=result, result_url="u")
    timeline = client.timeline(job_id)
    assert [each.number for each in timeline.attempts] == [1, 2, 3, 4, 5]
    assert [each.outcome for each in timeline.attempts] == [
        "failed", "returned", "failed", "failed", "succeeded",
    ]  # fmt: skip
    codes = [each.failure.code if each.failure else None for each in timeline.attempts]
    assert codes == ["source_timeout", None, "model_error", "worker_lost", None]
    assert timeline.attempts[0].next_step
    assert timeline.attempts[0].meaning
    assert {each.worker for each in timeline.attempts} == {"host:1"}
    assert timeline.attempts[4].stages == {
        "fetching": 1.5, "sampling": 0.25, "generating": 2.0, "storing": 0.125,
    }  # fmt: skip
    for each in timeline.attempts:
        assert each.queued_at
        assert each.started_at
        assert each.ended_at
        assert each.queued_at <= each.started_at <= each.ended_at <= timeline.at
    assert timeline.job.state == "succeeded"


def test_a_job_that_was_canceled_between_attempts_has_each_attempt_once(
    client: Client, ledger: Ledger
) -> None:
    job_id = client.submit(ASKED).id
    failure = Failure(code="source_timeout", message="slow", retryable=True, attempt=1)
    ledger.fail(job_id, begin(ledger, "t").token, failure, delay_s=3600)
    client.cancel(job_id)
    client.retry(job_id)
    assert [(each.number, each.outcome) for each in client.timeline(job_id).attempts] == [
        (1, "failed")
    ]


def test_a_record_notes_thirty_attempts(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    job_id = client.submit(ASKED).id
    for n in range(33):
        ledger.release(job_id, begin(ledger, f"t{n}").token)
    attempts = client.timeline(job_id).attempts
    assert [each.number for each in attempts] == list(range(4, 34))
    noted = [name for name in redis_client.hkeys(ledger.keys.job(job_id)) if "attempt:" in name]
    assert len(noted) == 30


def test_a_canceled_attempt_and_one_that_never_began(client: Client, ledger: Ledger) -> None:
    first, second = (client.submit(ASKED).id for _ in range(2))
    claim = begin(ledger, "t")
    client.cancel(first)
    client.cancel(second)
    assert ledger.finish(first, claim.token, result=None, result_url="u") == "cancel"
    (attempt,) = client.timeline(first).attempts
    assert (attempt.outcome, attempt.failure and attempt.failure.code) == ("canceled", "canceled")
    assert client.timeline(second).attempts == ()
