"""`VIDEOQA_WAIT_REPLICAS`: a call returns when a real replica has what it recorded, or says that none has."""

from __future__ import annotations

import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from support.sentinels import Replicated
from support.worker import begin, finish

from videoqa import Client, Settings, errors
from videoqa.cli.doctor import run_checks
from videoqa.jobs import Ledger, connect

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with Replicated(tmp_path_factory.mktemp("replicated")) as found:
        yield found


@pytest.fixture(autouse=True)
def _wait_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videoqa.jobs.replication.WAIT_S", 0.3)


@pytest.fixture
def waiting(replicated: Replicated) -> Settings:
    url = replicated.servers[0].url
    return Settings(redis_url=url, prefix=f"t{secrets.token_hex(4)}", wait_replicas=1)


@contextmanager
def frozen(replicated: Replicated) -> Iterator[None]:
    """The replica stands still, with its connection open."""
    os.kill(replicated.servers[1].pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(replicated.servers[1].pid, signal.SIGCONT)


def test_what_a_call_recorded_is_in_the_replica(replicated: Replicated, waiting: Settings) -> None:
    with Client(settings=waiting) as client, replicated.connect(replicated.servers[1]) as replica:

        def read_state(job_id: str) -> str | None:
            return replica.hget(client._backend.ledger.keys.job(job_id), "state")

        for _ in range(20):
            assert read_state(client.submit(**ASKED).id) == "queued"
        one, other = client.submit_many([ASKED, ASKED])
        assert read_state(other.id) == "queued"
        client.cancel(one.id)
        assert read_state(one.id) == "canceled"
        client.retry(one.id)
        assert read_state(one.id) == "queued"


CALLS: dict[str, Callable[[Client, str], object]] = {
    "submit": lambda client, _: client.submit(**ASKED, idempotency_key="one"),
    "submit_many": lambda client, _: client.submit_many([ASKED | {"idempotency_key": "many"}]),
    "cancel": lambda client, job_id: client.cancel(job_id),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_replica_that_does_not_answer_is_told_and_a_repeated_call_asks_again(
    name: str, replicated: Replicated, waiting: Settings
) -> None:
    with Client(settings=waiting) as client:
        job_id = client.submit(**ASKED).id
    with frozen(replicated):
        # The second call finds all written, on a connection that has written nothing: it is told the same.
        for _ in range(2):
            with Client(settings=waiting) as client:
                with pytest.raises(errors.NotReplicated, match="0 of 1 replicas") as caught:
                    CALLS[name](client, job_id)
                assert caught.value.code == "not_replicated"
                assert caught.value.retryable
                assert isinstance(caught.value, errors.RedisUnavailable)
                assert len(client.list().jobs) == 1 + (name != "cancel"), "it is recorded, once"
    with Client(settings=waiting) as client:
        CALLS[name](client, job_id)


def test_a_worker_goes_on_with_a_warning(
    replicated: Replicated, waiting: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "videoqa")
    with Client(settings=waiting) as client, connect(waiting) as redis_client:
        ledger = Ledger(redis_client, url=waiting.redis_url, prefix=waiting.prefix, wait_replicas=1)
        for _ in range(2):
            client.submit(**ASKED)
        claims = [begin(ledger, token=f"t{number}") for number in range(2)]
        with frozen(replicated):
            for claim in claims:
                finish(ledger, claim)
        told = [record for record in caplog.records if "0 of 1 replicas" in record.getMessage()]
        assert len(told) == 1


def test_a_user_without_wait_is_told_before_anything_is_recorded(
    replicated: Replicated, waiting: Settings
) -> None:
    rules = (f"~{waiting.prefix}:*", f"~{waiting.prefix}.*", f"~_kombu.binding*.{waiting.prefix}.*")
    with redis.Redis.from_url(waiting.redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "u", "on", ">u", *rules, "allcommands", "-wait")
        host = waiting.redis_url.rpartition("@")[2]
        theirs = waiting.model_copy(update={"redis_url": f"redis://u:u@{host}"})
        with (
            Client(settings=theirs) as client,
            pytest.raises(errors.RedisUnavailable, match=r"(?i)does not allow.*\bwait\b"),
        ):
            client.submit(**ASKED)
        assert admin.keys(f"{waiting.prefix}:*") == []


def test_doctor_counts_the_replicas_that_are_waited_for(waiting: Settings) -> None:
    for count, ok in ((1, True), (2, False)):
        settings = waiting.model_copy(update={"wait_replicas": count})
        check = next(check for check in run_checks(settings) if check.name == "replication")
        assert check.ok is ok
        assert "1 replica" in check.found
