"""Limits of a key hold over all gateways, are told in every answer, and count what was accepted only."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis
from support.worker import begin, finish, result_of

from videoqa import Client
from videoqa.contract import Usage
from videoqa.errors import InvalidRequest, RateLimited, RedisUnavailable
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.rate_limits import RateLimits
from videoqa.jobs import KeyQuota, Ledger
from videoqa.jobs import connect as connect_redis
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}


@pytest.fixture
def limited(connect: Connect, keys: KeyStore) -> Callable[..., httpx.Client]:
    def make(**limits: Any) -> httpx.Client:
        http = connect()
        text = keys.create("limited", ["submit", "read"], tenant="a", **limits).text
        http.headers["authorization"] = f"Bearer {text}"
        return http

    return make


def test_of_200_requests_at_once_ten_pass(limited: Callable[..., httpx.Client]) -> None:
    http = limited(rate="10/h")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: http.get("/v1/jobs"), range(200)))
    assert Counter(one.status_code for one in answers) == {200: 10, 429: 190}
    refused = next(one for one in answers if one.status_code == 429)
    problem = refused.json()
    assert (problem["code"], problem["limit"], problem["retryable"]) == (
        "rate_limited",
        "requests",
        True,
    )
    assert 3000 < int(refused.headers["retry-after"]) <= 3601
    assert refused.headers["ratelimit-policy"] == '"requests";q=10;w=3600'
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=3')
    left = [one.headers["ratelimit"].split(";")[1] for one in answers if one.status_code == 200]
    assert "r=0" in left


def test_several_gateways_count_together(settings: Settings, keys: KeyStore) -> None:
    key = keys.create("x", ["read"], rate="10/m").key
    clients = [connect_redis(settings) for _ in range(3)]
    gateways = [RateLimits(one, url=settings.redis_url, prefix=settings.prefix) for one in clients]

    def ask(number: int) -> bool:
        return gateways[number % 3].count_request(key)[1] is None

    with ThreadPoolExecutor(15) as pool:
        assert sum(pool.map(ask, range(200))) == 10
    for client in clients:
        client.close()


def test_a_retry_after_the_time_that_was_named_succeeds(
    limited: Callable[..., httpx.Client],
) -> None:
    http = limited(rate="3/s")
    for _ in range(20):
        refused = http.get("/v1/jobs")
        if refused.status_code == 429:
            break
    assert refused.status_code == 429
    time.sleep(int(refused.headers["retry-after"]))
    assert http.get("/v1/jobs").status_code == 200


def test_jobs_of_a_day_are_counted_one_by_one(limited: Callable[..., httpx.Client]) -> None:
    http = limited(jobs_per_day=4)
    first = http.post("/v1/jobs", json=ASKED)
    assert re.fullmatch(r'"jobs";r=3;t=\d+', first.headers["ratelimit"])
    assert first.headers["ratelimit-policy"] == '"jobs";q=4;w=86400'
    wrong = http.post("/v1/jobs", json=ASKED | {"inputs": []})
    assert wrong.status_code == 400, "a wrong request is not counted"
    assert http.post("/v1/jobs/job_unknown/retry").status_code == 404, "nor a refused retry"
    rows = http.post("/v1/jobs:batch", json={"jobs": [ASKED] * 5}).json()["jobs"]
    assert [row.get("error", {}).get("code") for row in rows] == [None] * 3 + ["rate_limited"] * 2
    refused = http.post("/v1/jobs", json=ASKED)
    assert (refused.status_code, refused.json()["limit"]) == (429, "jobs")
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert "ratelimit" not in http.get("/v1/jobs").headers
    http.post(f"/v1/jobs/{first.json()['id']}/cancel")
    assert http.post(f"/v1/jobs/{first.json()['id']}/retry").status_code == 429


def test_of_60_submits_at_once_ten_are_recorded(settings: Settings, keys: KeyStore) -> None:
    clients = [Client(settings=settings) for _ in range(3)]

    def submit(number: int) -> bool:
        client = clients[number % 3]._for_key(KeyQuota("k", jobs=10))
        try:
            client.submit(ASKED)
        except RateLimited:
            return False
        return True

    with ThreadPoolExecutor(15) as pool:
        assert sum(pool.map(submit, range(60))) == 10
    assert len(clients[0].list().jobs) == 10
    for client in clients:
        client.close()


def test_a_job_that_was_recorded_before_is_not_counted(
    limited: Callable[..., httpx.Client],
) -> None:
    http = limited(jobs_per_day=2)
    asked = {"json": ASKED, "headers": {"idempotency-key": "k"}}
    ids = {http.post("/v1/jobs", **asked).json()["id"] for _ in range(5)}
    assert len(ids) == 1
    assert http.post("/v1/jobs", json=ASKED).headers["ratelimit"].startswith('"jobs";r=0')


def test_open_jobs_of_a_tenant_are_limited_until_one_ends(
    limited: Callable[..., httpx.Client], ledger: Ledger
) -> None:
    http = limited(open_jobs=2)
    jobs = [http.post("/v1/jobs", json=ASKED) for _ in range(2)]
    assert jobs[1].headers["ratelimit"] == '"open_jobs";r=0'
    assert jobs[1].headers["ratelimit-policy"] == '"open_jobs";q=2'
    claim = begin(ledger, "t")
    refused = http.post("/v1/jobs", json=ASKED)
    assert (refused.status_code, refused.json()["limit"]) == (429, "open_jobs")
    assert refused.headers["retry-after"] == "10"
    finish(ledger, claim, q1="a cat")
    assert http.post("/v1/jobs", json=ASKED).status_code == 202


def test_jobs_whose_records_were_deleted_are_open_no_longer(
    client: Client, settings: Settings, redis_client: redis.Redis
) -> None:
    limited = client._for_key(KeyQuota("k", open_jobs=20))
    for job in [limited.submit(ASKED) for _ in range(20)]:
        redis_client.delete(f"{settings.prefix}:job:{job.id}")
    assert limited.submit(ASKED).state == "queued"


@pytest.mark.parametrize(
    ("limit", "name"), [("frames_per_day", "frames"), ("tokens_per_day", "tokens")]
)
def test_what_jobs_used_today_ends_further_submits(
    limited: Callable[..., httpx.Client], ledger: Ledger, limit: str, name: str
) -> None:
    http = limited(**{limit: 8})
    assert http.post("/v1/jobs", json=ASKED).status_code == 202
    claim = begin(ledger, "t")
    assert http.post("/v1/jobs", json=ASKED).status_code == 202, "its use is not known yet"
    usage = Usage(frames=8, input_tokens=6, output_tokens=2)
    result = result_of(claim, q1="a cat").model_copy(update={"usage": usage})
    assert ledger.finish(claim.job_id, claim.token, result=result, result_url="u") == "ok"
    refused = http.post("/v1/jobs", json=ASKED)
    assert (refused.status_code, refused.json()["limit"]) == (429, name)
    assert refused.headers["ratelimit"].startswith(f'"{name}";r=0;t=')


def test_a_redis_that_is_away_is_reported_and_lets_nobody_pass(
    settings: Settings, keys: KeyStore
) -> None:
    key = keys.create("x", ["read"], rate="10/s").key
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    client = connect_redis(away)
    with pytest.raises(RedisUnavailable):
        RateLimits(client, url=away.redis_url, prefix=away.prefix).count_request(key)


@pytest.mark.parametrize("rate", ["", "10", "0/s", "-1/s", "10/x", "10/s;1/m", "1e9/s", "10 / s"])
def test_a_rate_that_is_none_is_refused(keys: KeyStore, rate: str) -> None:
    with pytest.raises(InvalidRequest, match="expected requests in a second"):
        keys.create("x", ["read"], rate=rate)
