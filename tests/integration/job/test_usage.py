"""Counters of use: each end of a job is counted once, by day, model, tag, API key and tenant."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
import redis
from support.worker import begin, result_of

from videoqa import Client, Settings, errors
from videoqa.contract import SourceInfo, Usage, UsageRow
from videoqa.jobs import KeyQuota, Ledger

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
USED = Usage(
    input_tokens=100, output_tokens=7, frames=8, bytes_fetched=2**41, fetching_s=1.5, generating_s=2,
)  # fmt: skip


@pytest.fixture
def client(settings: Settings) -> Client:
    return Client(settings=settings)


def finish(ledger: Ledger) -> None:
    claim = begin(ledger)
    source = SourceInfo(
        url="s3://b/clip.mp4", kind="video", size_bytes=1, start=2.0, duration_s=10, width=1, height=1
    )  # fmt: skip
    result = result_of(claim, q1="a cat").model_copy(update={"usage": USED, "sources": (source,)})
    # A large result is stored elsewhere, and counted all the same.
    said = ledger.finish(
        claim.job_id, claim.token, result=None, result_url="u", counted=result
    )  # fmt: skip
    assert said in ("ok", "woken")
    again = ledger.finish(claim.job_id, claim.token, result=None, result_url="u", counted=result)
    assert again == "ok"  # a repeated call is not counted


def test_each_end_is_counted_once_and_stays_when_the_record_goes(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    keyed = client._for_key(KeyQuota("k1"))
    keyed.submit({**ASKED, "tags": ["t", "u"]})
    finish(ledger)
    client.submit({**ASKED, "tags": ["t"]})
    finish(ledger)
    canceled = client.submit(ASKED)
    for _ in range(2):  # an end of a retried job is one more
        client.cancel(canceled.id)
        client.retry(canceled.id)
    redis_client.delete(ledger.keys.job(canceled.id))
    (day,) = client.usage()
    assert day == UsageRow(
        name=day.name, succeeded=2, canceled=2, answers=2, frames=16, input_tokens=200, output_tokens=14,
        bytes_fetched=2**42, video_s=16, processing_s=7,
    )  # fmt: skip
    assert [(row.name, row.succeeded) for row in client.usage(by="tag")] == [("t", 2), ("u", 1)]
    by_key = client.usage(by="key")
    assert [(row.name, row.succeeded, row.canceled) for row in by_key] == [
        ("k1", 1, 0), (None, 1, 2),
    ]  # fmt: skip
    (key,) = redis_client.keys(f"{ledger.keys.prefix}:usage:*")
    assert 399 * 86400 < redis_client.ttl(key) <= 400 * 86400


def test_tenants_see_their_own_and_an_operator_sees_all(client: Client) -> None:
    for tenant, model in (("a", "m"), ("a:b", "m"), ("a", "n"), (None, "m")):
        own = client if tenant is None else client.for_tenant(tenant)
        own.cancel(own.submit({**ASKED, "model": model}).id)

    def count(of: Client, **fields: Any) -> dict[str | None, int]:
        return {row.name: row.canceled for row in of.usage(**fields)}

    assert count(client, by="tenant") == {"a": 2, "a:b": 1, None: 1}
    assert count(client, by="model") == {"m": 3, "n": 1}
    assert count(client, by="model", tenant="a") == {"m": 1, "n": 1}
    assert count(client.for_tenant("a"), by="model") == {"m": 1, "n": 1}
    assert count(client.for_tenant("c")) == {}
    today = date.today()
    assert count(client, last_day=today - timedelta(days=2)) == {}
    with pytest.raises(errors.OperatorOnly):
        client.for_tenant("a").usage(tenant="a:b")


def test_a_caller_cannot_fill_redis_with_names(client: Client, redis_client: redis.Redis) -> None:
    for n in range(15):
        tags = [f"t{n}-{number}" for number in range(7)]
        client.cancel(client.submit({**ASKED, "tags": tags, "model": f"m{n}"}).id)
    (key,) = redis_client.keys(f"{client.settings.prefix}:usage:*")
    assert redis_client.hlen(key) == 1 + 2 + 100 + 1 + 15
    rows = client.usage(by="tag")
    assert (len(rows), rows[-1].other, rows[-1].name, rows[-1].canceled) == (101, True, None, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"by": "moon"},
        {"first_day": date(2020, 1, 2), "last_day": date(2020, 1, 1)},
        {"first_day": date(2020, 1, 1)},
        {"last_day": "2020-01-01"},
    ],
)
def test_a_wrong_question_is_refused(client: Client, fields: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequest):
        client.usage(**fields)
    assert client.usage(last_day=date.min) == []
