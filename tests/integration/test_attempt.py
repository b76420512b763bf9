"""What a worker does with a bell whose job it cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from videoqa.job import JobRequest
from videoqa.objects import ObjectStore
from videoqa.settings import Settings
from videoqa.states import Bell, Ledger, new_job_id
from videoqa_worker.attempt import Attempts, backoff_s
from videoqa_worker.lease import LeaseKeeper
from videoqa_worker.settings import WorkerSettings


@pytest.fixture
def attempts(settings: Settings, ledger: Ledger, tmp_path: Path) -> Attempts:
    """Without a pipeline: nothing here comes so far."""
    return Attempts(
        WorkerSettings(redis_url=settings.redis_url, prefix=settings.prefix, retry_base_s=0.0),
        ledger,
        LeaseKeeper(ledger, lease_s=30, heartbeat_s=1),
        cast(Any, None),
        ObjectStore(file_roots=(tmp_path,)),
        lambda bell: None,
        worker_id="w",
        model="demo",
        revision=None,
    )


def submit(ledger: Ledger) -> Bell:
    request = JobRequest.model_validate({"inputs": ["s3://b/k.mp4"], "questions": ["What?"]})
    bell = ledger.submit(new_job_id(), request, start_by_default_s=3600)
    assert isinstance(bell, Bell)
    return bell


def rewrite(redis_client: redis.Redis, ledger: Ledger, bell: Bell, **fields: object) -> None:
    """As a newer release would have written it."""
    key = ledger.keys.job(bell.job_id)
    text = cast("str", redis_client.hget(key, "request"))
    redis_client.hset(key, "request", json.dumps(json.loads(text) | fields))


def test_a_request_of_a_newer_release_is_left_to_newer_workers(
    attempts: Attempts, ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = submit(ledger)
    rewrite(redis_client, ledger, bell, sampling={"method": "psychic"})
    attempts.answer(bell)
    rewrite(redis_client, ledger, bell, sampling={"method": "uniform"})
    job = ledger.get(bell.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code, job.failure.retryable) == (
        "queued",
        "invalid_request",
        True,
    )
    assert "upgrade this side" in job.failure.message


def test_a_field_that_only_a_newer_release_knows_does_not_disturb(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = submit(ledger)
    rewrite(redis_client, ledger, bell, mood="good")
    assert ledger.get(bell.job_id).state == "queued"
    claim = ledger.claim(bell, worker="w", lease_s=30, token="t")
    assert not isinstance(claim, str)


def test_a_bell_that_leads_nowhere_is_dropped(attempts: Attempts) -> None:
    attempts.answer(Bell(job_id="job_none", attempt=1, bell=1, queue="q"))


def test_retries_wait_longer_each_time_and_never_above_the_cap() -> None:
    def longest(attempt: int) -> float:
        return max(backoff_s(attempt, base_s=2, cap_s=30) for _ in range(300))

    assert [round(longest(n)) for n in (1, 2, 3)] == pytest.approx([2, 4, 8], abs=1)
    assert longest(10) <= 30


def test_a_job_that_starts_while_its_worker_shuts_down_is_given_back(
    attempts: Attempts, ledger: Ledger
) -> None:
    bell = submit(ledger)
    attempts.close()
    attempts.answer(bell)
    job = ledger.get(bell.job_id)
    assert (job.state, job.attempt, job.max_attempts) == ("queued", 1, 4)
    assert job.position == 0
