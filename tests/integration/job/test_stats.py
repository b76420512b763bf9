"""Figures of the fleet: minute rings in a real Redis, and what `Client.stats` makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from support.worker import announce, begin, fail, result_of

from videoqa import Client, Settings, errors
from videoqa.contract import Failure, ModelStats, Usage
from videoqa.jobs import Ledger, queue_name

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
USED = Usage(
    input_tokens=100, output_tokens=7, frames=8, queued_s=0.3, fetching_s=1.5, sampling_s=0.2, generating_s=2.0,
    storing_s=0.01,
)  # fmt: skip


def finish(ledger: Ledger, *, cached: bool = False) -> str:
    claim = begin(ledger)
    result = result_of(claim, q1="a cat").model_copy(update={"usage": USED, "cached": cached})
    for _ in range(2):  # a repeated call is not counted
        said = ledger.finish(
            claim.job_id, claim.token, result=None, result_url="u", counted=result
        )  # fmt: skip
        assert said in ("ok", "woken")
    return claim.job_id


def retry_later(ledger: Ledger) -> None:
    claim = begin(ledger, "retried")
    failure = Failure(code="source_timeout", message="slow", retryable=True, attempt=1)
    assert ledger.fail(claim.job_id, claim.token, failure, delay_s=3600) == "retry"


def find(client: Client, model: str | None = None) -> ModelStats:
    (found,) = [each for each in client.stats().models if each.model == model and not each.other]
    return found


def test_what_becomes_of_jobs_is_counted_by_model_and_minute(
    client: Client, ledger: Ledger
) -> None:
    jobs = [client.submit(ASKED) for _ in range(6)]
    finish(ledger)
    finish(ledger, cached=True)
    fail(ledger)
    retry_later(ledger)
    client.cancel(jobs[4].id)
    for span in ("hour", "day"):
        stats = client.stats(span)
        (found,) = stats.models
        totals = found.totals
        assert (totals.submitted, totals.succeeded, totals.cached) == (6, 2, 1)
        assert (totals.failed, totals.canceled, totals.retried, totals.ended) == (1, 1, 1, 4)
        assert (totals.frames, totals.input_tokens, totals.output_tokens) == (8, 100, 7)
        assert found.failures == {"model_error": 1}
        assert found.retries == {"source_timeout": 1}
        assert sum(point.submitted for point in found.series) == 6
        assert len(found.series) == (60 if span == "hour" else 96)
        assert found.series[0].at == stats.since
        assert 0 <= (stats.at - found.series[-1].at).total_seconds() < stats.step_s
        assert {name: stage.jobs for name, stage in found.stages.items()} == {
            "queued": 2, "fetching": 1, "sampling": 1, "generating": 1, "storing": 1,
        }  # fmt: skip
        assert found.stages["generating"].mean_s == 2.0
        assert found.stages["generating"].p50_s == pytest.approx(2.0, rel=0.2)
        assert (found.waiting, found.running, found.delayed) == (1, 0, 1)
        assert found.jobs_per_minute > 0
        assert stats.all.totals == totals


def test_an_idle_fleet_reports_zeros_also_without_workers(client: Client) -> None:
    stats = client.stats()
    assert stats.models == ()
    assert stats.all.totals.ended == 0
    assert stats.all.stages["queued"].p50_s is None
    assert stats.attention == ()


def test_the_figures_are_an_operators(client: Client) -> None:
    with pytest.raises(errors.OperatorOnly):
        client.for_tenant("a").stats()
    with pytest.raises(errors.InvalidRequest):
        client.stats("week")  # type: ignore[arg-type]
    client.submit({**ASKED, "model": "m"})
    client.submit(ASKED)
    assert [each.model for each in client.stats(model="m").models] == ["m"]


def test_a_minute_that_leaves_the_ring_is_counted_in_its_quarter(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    """A place of the ring holds what was counted two hours before, and one holds what is older than a day."""
    key = ledger.keys.stats("default")
    minute = int(redis_client.time()[0]) // 60
    for ahead in range(3):  # the minute may end while this test runs
        place, old = (minute + ahead) % 120, minute + ahead - 120
        redis_client.hset(key, f"em{place}", f'{old} {{"succeeded":5,"frames":40}}')
        redis_client.hset(key, f"eq{old // 15 % 104}", f'{old // 15} {{"succeeded":2}}')
        redis_client.hset(key, f"sm{place}", f'{old - 30 * 60} {{"submitted":9}}')
    redis_client.zadd(ledger.keys.stats_models, {"default": minute})
    before = client.stats("day").all.totals
    client.submit(ASKED)
    finish(ledger)
    after = client.stats("day").all.totals
    assert (after.succeeded, after.frames) == (before.succeeded + 1, before.frames + 8)
    assert (before.submitted, after.submitted) == (0, 1)
    assert client.stats("hour").all.totals.succeeded == 1
    assert redis_client.hlen(key) <= 2 * (120 + 104)
    assert 0 < redis_client.ttl(key) <= 26 * 3600


def test_callers_cannot_fill_redis_with_models(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    client.submit_many([{**ASKED, "model": f"m{n}"} for n in range(60)])
    rings = redis_client.keys(f"{ledger.keys.prefix}:stats:*")
    assert len(rings) == 51
    other = [each for each in client.stats().models if each.other]
    assert [each.totals.submitted for each in other] == [10]
    queue = queue_name(ledger.keys.prefix, "m59", "interactive")
    redis_client.zadd(ledger.keys.serving(queue), {"w": int(redis_client.time()[0])})
    client.submit({**ASKED, "model": "m59"})
    assert find(client, "m59").totals.submitted == 1, "a model that a worker serves has a row"


def test_two_clients_agree(client: Client, settings: Settings, ledger: Ledger) -> None:
    client.submit(ASKED)
    finish(ledger)
    with Client(settings=settings) as second:
        one, other = client.stats(), second.stats()
    assert one.models[0].totals == other.models[0].totals
    assert abs((one.at - other.at).total_seconds()) < 60


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "x",
        '-1 {"a":1}',
        "MINUTE [",
        'MINUTE {"a":1e999,"submitted":-4,"succeeded":"x","b":[]}',
        "9" * 12,
    ],
)
def test_junk_in_a_ring_costs_nothing_but_its_minute(
    client: Client, ledger: Ledger, redis_client: redis.Redis, junk: str
) -> None:
    key = ledger.keys.stats("default")
    minute = int(redis_client.time()[0]) // 60
    redis_client.zadd(ledger.keys.stats_models, {"default": minute})
    for kind in "se":
        text = junk.replace("MINUTE", str(minute))
        redis_client.hset(key, mapping={f"{kind}m{place}": text for place in range(120)})
    client.submit(ASKED)
    finish(ledger)
    assert find(client).totals.model_dump(include={"submitted", "succeeded"}) == {
        "submitted": 1, "succeeded": 1,
    }  # fmt: skip


def test_keys_of_another_type_are_replaced(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    for key in (ledger.keys.stats_models, ledger.keys.stats("default")):
        redis_client.set(key, "x")
    assert client.stats("day").all.totals.submitted == 0
    client.submit(ASKED)
    assert find(client).totals.submitted == 1


def test_attention_is_made_of_what_redis_has(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    """Times that are long past are written as scripts would have written them then."""
    now = int(redis_client.time()[0])
    client.submit({**ASKED, "model": "m"})
    queue = queue_name(ledger.keys.prefix, "m", "interactive")
    client.pause("m", priority="interactive")
    assert {one.code for one in client.stats().attention} == {"queue_paused"}
    (job_id,) = redis_client.zrange(ledger.keys.waiting(queue), 0, 0)
    redis_client.hset(
        ledger.keys.job(job_id), mapping={"created_at": now - 900, "start_by": now + 100}
    )
    redis_client.hset(ledger.keys.dispatch, f"{queue}:paused", now - 7200)
    redis_client.zadd(f"{ledger.keys.prefix}:served", {queue: now - 300})
    redis_client.zadd(ledger.keys.deliveries("pending"), {"whd_1": now - 3600, "whd_2": now})
    redis_client.xadd(ledger.keys.outbox, {"job": job_id}, id=f"{(now - 600) * 1000}-0")
    found = {one.code: one.message for one in client.stats().attention}
    assert found.keys() == {"no_worker", "start_by_near", "queue_paused", "webhooks_late"}
    assert "no worker for 5 min" in found["no_worker"]
    assert "waits 15 min and expires in" in found["start_by_near"]
    assert "paused for 2 h, 1 job waits" in found["queue_paused"]
    assert "2 events not delivered yet, the oldest for 60 min" in found["webhooks_late"]


def test_a_worker_that_is_silent_is_said_and_one_that_is_gone_is_not_there(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    announce(ledger, "m")
    assert client.stats().attention == ()
    redis_client.zincrby(ledger.keys.workers, -45, "host:1")
    (worker,) = client.workers()
    assert 45 <= (worker.heard_s or 0) < 60
    assert [one.code for one in client.stats().attention] == ["worker_silent"]
    redis_client.zincrby(ledger.keys.workers, -20, "host:1")
    assert client.workers() == []


def test_a_worker_of_several_queues_counts_once_in_the_sum(client: Client, ledger: Ledger) -> None:
    announce(ledger, "m", None)
    stats = client.stats()
    assert [(one.model, one.workers, one.slots) for one in stats.models] == [
        (None, 1, 1),
        ("m", 1, 1),
    ]
    assert (stats.all.workers, stats.all.slots) == (1, 1)
