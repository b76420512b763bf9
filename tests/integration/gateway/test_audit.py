"""The audit log: changes by operators and administrators, and by the command line."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
import redis

from videoqa.errors import RedisUnavailable
from videoqa.gateway.access.audit import KEPT, AuditLog, make_fields
from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import connect as connect_redis
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

ASKED = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}


@pytest.fixture
def log(settings: Settings, redis_client: redis.Redis) -> AuditLog:
    return AuditLog(redis_client, url=settings.redis_url, prefix=settings.prefix)


def test_what_an_operator_changes_is_noted(connect: Connect, keys: KeyStore, log: AuditLog) -> None:
    owner, operator = connect("submit", "read", tenant="a"), connect("admin")
    job_id = owner.post("/v1/jobs", json=ASKED).json()["id"]
    before = len(log.read())
    operator.get("/v1/workers")
    owner.post(f"/v1/jobs/{job_id}/cancel")
    operator.post("/v1/jobs", json=ASKED)
    assert len(log.read()) == before, "reads, submits and a tenant's own changes are not noted"
    answer = operator.post(f"/v1/jobs/{job_id}/retry")
    noted, *_ = log.read()
    assert (noted.what, noted.on) == ("POST /v1/jobs/{job_id}/retry", job_id)
    assert noted.who == keys.list()[-1].id
    assert noted.request_id == answer.headers["x-request-id"]
    operator.delete("/v1/jobs/" + "x" * 5000)
    assert len(log.read(1)[0].on) == 200


def test_changes_of_keys_are_noted_without_their_secrets(
    keys: KeyStore, log: AuditLog, redis_client: redis.Redis, settings: Settings
) -> None:
    made = keys.create("web", ["read"], tenant="a")
    again = keys.rotate(made.key.id)
    keys.revoke(made.key.id)
    entries = log.read()
    assert [entry.what for entry in entries] == ["keys revoke", "keys rotate", "keys create"]
    assert {entry.on for entry in entries} == {made.key.id}
    assert all(entry.who.startswith("shell") for entry in entries)
    assert entries[0].detail == "web: read of a"
    raw = repr(redis_client.xrange(f"{settings.prefix}:audit"))
    assert made.text[17:50] not in raw
    assert again.text[17:50] not in raw


def test_the_log_is_bounded(log: AuditLog, redis_client: redis.Redis, settings: Settings) -> None:
    pipe = redis_client.pipeline(transaction=False)
    for number in range(KEPT + 500):
        log.write(make_fields("x", "keys create", on=str(number)), pipe=pipe)
    pipe.execute()
    assert KEPT <= int(redis_client.xlen(f"{settings.prefix}:audit")) < KEPT + 200
    assert log.read(1)[0].on == str(KEPT + 499)


def test_a_log_that_cannot_be_written_is_reported(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    log = AuditLog(connect_redis(away), url=away.redis_url, prefix=away.prefix)
    with pytest.raises(RedisUnavailable):
        log.write(make_fields("x", "y"))


def test_a_change_that_cannot_be_noted_is_not_made(
    connect: Connect, redis_client: redis.Redis, settings: Settings
) -> None:
    owner, operator = connect("submit", "read", tenant="a"), connect("operate", "submit")
    job_id = owner.post("/v1/jobs", json=ASKED).json()["id"]
    redis_client.set(f"{settings.prefix}:audit", "no stream")
    assert operator.post(f"/v1/jobs/{job_id}/cancel").status_code == 500
    assert owner.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
