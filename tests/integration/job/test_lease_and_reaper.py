"""Leases keep jobs with their workers, and bells are rung again only when they are lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import redis
from celery import Celery
from support.processes import wait_until

from videoqa import Client, Settings, errors
from videoqa.broker import make_celery
from videoqa.contract import Job, WorkerInfo
from videoqa.jobs import Bell, Ledger, connect
from videoqa_worker.embedded.redis_server import RedisServer
from videoqa_worker.job.context import JobControl
from videoqa_worker.job.leases import LeaseKeeper
from videoqa_worker.service.reaper import Reaper


@pytest.fixture
def queue(settings: Settings) -> str:
    return f"{settings.prefix}.default.interactive"


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    app = make_celery(settings)
    yield app
    app.close()


def submit(client: Client) -> Job:
    return client.submit(inputs=["s3://b/clip.mp4"], questions=["What is it?"])


def claim(ledger: Ledger, job: Job, *, lease_s: float = 30) -> JobControl:
    bell = Bell(job.id, 1, 1, f"{ledger.keys.prefix}.default.interactive")
    claim = ledger.claim(bell, worker="w", lease_s=lease_s, token="1").claim
    assert claim is not None
    return JobControl(job.id, 1, claim.timeout_s, token="1")


def describe(*queues: str, worker_id: str = "host:1") -> Callable[[], WorkerInfo]:
    """A worker that serves these queues."""

    def info() -> WorkerInfo:
        now = datetime.now(UTC)
        return WorkerInfo(
            id=worker_id, model="demo", queues=queues, slots=1, running=0, ready=True,
            started_at=now, seen_at=now,
        )  # fmt: skip

    return info


# -- leases


def test_a_heartbeat_keeps_a_lease_alive_as_long_as_the_job_is_held(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    job = submit(client)
    control = claim(ledger, job, lease_s=30)

    def end_s() -> float:
        return cast("float", redis_client.zscore(ledger.keys.leases, job.id))

    with LeaseKeeper(ledger, lease_s=30, heartbeat_s=0.05) as leases:
        with leases.holding(control):
            assert leases.list_held() == [control]
            for _ in range(3):
                before_s = end_s()
                redis_client.zincrby(ledger.keys.leases, -29, job.id)
                wait_until(lambda before_s=before_s: end_s() >= before_s)
                assert ledger.reap(grace_s=60) == []
            control.check()
        assert leases.list_held() == []
        redis_client.zincrby(ledger.keys.leases, -31, job.id)
        rung: list[Bell] = []
        wait_until(lambda: rung.extend(ledger.reap(grace_s=60)) or rung)
    assert [(bell.job_id, bell.attempt) for bell in rung] == [(job.id, 2)]


def test_a_cancel_reaches_the_running_job_by_its_heartbeat(client: Client, ledger: Ledger) -> None:
    canceled, other = submit(client), submit(client)
    controls = [claim(ledger, job) for job in (canceled, other)]
    with (
        LeaseKeeper(ledger, lease_s=30, heartbeat_s=0.05) as leases,
        leases.holding(controls[0]),
        leases.holding(controls[1]),
    ):
        client.cancel(canceled.id)
        wait_until(controls[0].is_stopped)
        with pytest.raises(errors.JobCanceled):
            controls[0].check()
        controls[1].check()


def test_a_job_that_went_to_another_worker_is_stopped_here(client: Client, ledger: Ledger) -> None:
    control = claim(ledger, submit(client), lease_s=0.01)
    wait_until(lambda: ledger.reap(grace_s=60))
    leases = LeaseKeeper(ledger, lease_s=30, heartbeat_s=60)
    with leases.holding(control):
        leases.beat()
    with pytest.raises(errors.LeaseLost, match="attempt 1"):
        control.check()


def test_a_beat_that_meets_the_unexpected_is_not_the_last(
    client: Client, ledger: Ledger, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    job = submit(client)
    control = claim(ledger, job)
    key = ledger.keys.leases
    with LeaseKeeper(ledger, lease_s=30, heartbeat_s=0.05) as leases, leases.holding(control):
        redis_client.set(key, "no leases")
        wait_until(lambda: "a heartbeat failed" in caplog.text)
        redis_client.delete(key)
        client.cancel(job.id)
        wait_until(lambda: not leases._thread.is_alive() or control.is_stopped())
        assert leases._thread.is_alive()


def test_leases_and_reaping_go_on_after_redis_was_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = RedisServer(tmp_path)
    settings = Settings(redis_url=first.url, connect_timeout_s=0.5, socket_timeout_s=2.1)
    app = make_celery(settings)
    try:
        with Client(settings=settings) as client, connect(settings) as raw:
            ledger = Ledger(raw, url=settings.redis_url)
            running, lost = submit(client), submit(client)
            control = claim(ledger, running)
            worker = describe("videoqa.default.interactive")
            with (
                caplog.at_level(logging.WARNING),
                LeaseKeeper(ledger, lease_s=30, heartbeat_s=0.05) as leases,
                Reaper(ledger, app, worker, every_s=0.05, grace_s=0.05),
                leases.holding(control),
            ):
                wait_until(client.workers)
                first.kill()
                wait_until(lambda: "leases can't be renewed, jobs go on" in caplog.text)
                wait_until(lambda: "the reaper cannot do all of its work" in caplog.text)
                control.check()
                with RedisServer(tmp_path, port=first.port, password=first.password):
                    raw.delete("videoqa.default.interactive")
                    before_s = raw.zscore(ledger.keys.leases, running.id)
                    wait_until(lambda: raw.zscore(ledger.keys.leases, running.id) != before_s)
                    wait_until(lambda: raw.llen("videoqa.default.interactive"))
                    control.check()
                    assert ledger.finish(running.id, "1", result=None, result_url="u") == "ok"
                    assert client.get(lost.id).state == "queued"
                    warned = [text for text in caplog.messages if "can't be renewed" in text]
                    assert len(warned) == 1  # once an outage, not once a beat
    finally:
        app.close()
        first.stop()


# -- reaping


def test_lost_jobs_are_found_in_a_redis_that_is_full(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, Client(server.url) as client:
        app = make_celery(client.settings)
        with connect(client.settings) as raw:
            ledger = Ledger(raw, url=server.url)
            job = client.submit(inputs=["s3://b/k.mp4"], questions=["What?"], max_attempts=1)
            claim(ledger, job, lease_s=0.05)
            raw.config_set("maxmemory", "1mb")
            with pytest.raises(errors.RedisUnavailable, match="is full"):
                submit(client)
            with Reaper(ledger, app, describe("videoqa.default.bulk"), every_s=0.05, grace_s=60):
                wait_until(lambda: client.get(job.id).final)
            raw.config_set("maxmemory", "0")
        app.close()


def reaper(ledger: Ledger, app: Celery, *queues: str, grace_s: float = 0.02) -> Reaper:
    return Reaper(ledger, app, describe(*queues), every_s=60, grace_s=grace_s)


def test_the_broker_says_which_queues_are_empty(
    client: Client, ledger: Ledger, app: Celery, queue: str
) -> None:
    never = f"{ledger.keys.prefix}.never.bulk"
    look = reaper(ledger, app, queue, never)
    assert look._list_empty_queues() == [queue, never]
    submit(client)
    assert look._list_empty_queues() == [never]
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(queue, no_ack=False)
        assert message is not None
        assert look._list_empty_queues() == [queue, never]  # heard: no longer in the queue
        connection.default_channel.basic_ack(message.delivery_tag)
    assert look._list_empty_queues() == [queue, never]


def test_a_lost_bell_is_rung_once(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    jobs = [submit(client) for _ in range(3)]
    redis_client.delete(queue)
    assert reaper(ledger, app, queue).reap() == 0  # they may be on their way
    time.sleep(0.05)
    assert reaper(ledger, app, queue).reap() == 3
    assert redis_client.llen(queue) == 3
    time.sleep(0.05)
    assert reaper(ledger, app, queue).reap() == 0
    assert {client.get(job.id).state for job in jobs} == {"queued"}


def test_a_message_that_waits_is_not_rung_again(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    jobs = [submit(client) for _ in range(5)]
    for _ in range(2):
        assert reaper(ledger, app, queue).reap() == 0
        time.sleep(0.05)
    claim(ledger, jobs[0])
    redis_client.rpop(queue)
    assert reaper(ledger, app, queue).reap() == 0
    assert redis_client.llen(queue) == 4


def test_a_worker_does_not_judge_queues_that_it_does_not_serve(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    submit(client)
    redis_client.delete(queue)
    for _ in range(2):
        assert reaper(ledger, app, f"{ledger.keys.prefix}.other.bulk").reap() == 0
        time.sleep(0.05)


def test_a_lost_bell_is_rung_beside_workers_that_serve_other_queues(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    submit(client)
    redis_client.delete(queue)
    other = reaper(ledger, app, f"{ledger.keys.prefix}.other.bulk")
    assert (reaper(ledger, app, queue).reap(), other.reap()) == (0, 0)
    time.sleep(0.05)
    assert reaper(ledger, app, queue).reap() == 1


def test_a_bell_that_was_missed_for_a_moment_gets_its_time_again(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    submit(client)
    kept = redis_client.lindex(queue, 0)
    assert isinstance(kept, str)
    for _ in range(2):
        redis_client.delete(queue)
        assert reaper(ledger, app, queue).reap() == 0
        time.sleep(0.05)
        redis_client.lpush(queue, kept)
        assert reaper(ledger, app, queue).reap() == 0


def test_a_young_bell_is_given_time(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    submit(client)
    redis_client.delete(queue)
    assert reaper(ledger, app, queue, grace_s=60).reap() == 0


def test_a_running_reaper_announces_its_worker_rings_and_says_goodbye(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    job = submit(client)
    redis_client.delete(queue)
    with Reaper(ledger, app, describe(queue), every_s=0.05, grace_s=0.02):
        wait_until(client.workers)
        assert client.get(job.id).waiting_for == "a free worker"
        wait_until(lambda: redis_client.llen(queue) == 1)
    assert client.workers() == []


def test_two_reapers_do_not_ring_twice(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    for _ in range(5):
        submit(client)
    redis_client.delete(queue)
    first, second = (reaper(ledger, app, queue, grace_s=60) for _ in range(2))
    assert (first.reap(), second.reap()) == (0, 0)
    redis_client.hincrbyfloat(
        ledger.keys.bells, f"{queue}:short", -61
    )  # since when bells are missing
    assert (first.reap(), second.reap()) == (5, 0)
    assert redis_client.llen(queue) == 5
