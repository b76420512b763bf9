"""Leases keep jobs with their workers, and bells are rung again only when they are lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import redis
from celery import Celery
from support.processes import wait_until

from videoqa import Client, Settings, errors
from videoqa.broker import make_celery, ring
from videoqa.contract import Job, WorkerInfo
from videoqa.jobs import Ledger, connect
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
    queue = f"{ledger.keys.prefix}.default.interactive"
    claim = ledger.claim([queue], worker="w", lease_s=lease_s, token=job.id).claim
    assert claim is not None
    assert claim.job_id == job.id
    return JobControl(job.id, claim.attempt, claim.timeout_s, token=job.id)


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
                assert ledger.reap(grace_s=60).ring == []
            control.check()
        assert leases.list_held() == []
        redis_client.zincrby(ledger.keys.leases, -31, job.id)
        wait_until(lambda: ledger.reap(grace_s=60).ring)
    assert client.get(job.id).state == "queued"


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
    wait_until(lambda: ledger.reap(grace_s=60).ring)
    leases = LeaseKeeper(ledger, lease_s=30, heartbeat_s=60)
    with leases.holding(control):
        leases.beat()
    with pytest.raises(errors.LeaseLost, match="attempt 1"):
        control.check()


def test_leases_of_a_draining_worker_end_early_and_its_attempts_are_not_counted(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    job = client.submit(inputs=["s3://b/k.mp4"], questions=["What?"], max_attempts=1)
    control = claim(ledger, job, lease_s=300)

    def left_s() -> float:
        end_s = cast("float | None", redis_client.zscore(ledger.keys.leases, job.id)) or 0.0
        return end_s - cast("tuple[int, int]", redis_client.time())[0]

    with LeaseKeeper(ledger, lease_s=300, heartbeat_s=60) as leases, leases.holding(control):
        leases.drain()
        wait_until(lambda: left_s() <= 6)
        control.check()
    redis_client.zincrby(ledger.keys.leases, -6, job.id)  # then the worker is killed
    assert ledger.reap(grace_s=60).ring
    found = client.get(job.id)
    assert (found.state, found.attempt, found.failure) == ("queued", 1, None)
    # Now it runs in a worker that does not drain: if that is lost, the attempt counts.
    claim(ledger, job)
    redis_client.zincrby(ledger.keys.leases, -31, job.id)
    ledger.reap(grace_s=60)
    ended = client.get(job.id)
    assert ended.failure is not None
    assert (ended.state, ended.failure.code) == ("failed", "worker_lost")


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
                    assert (
                        ledger.finish(running.id, control.token, result=None, result_url="u")
                        == "ok"
                    )
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


def reaper(ledger: Ledger, app: Celery, *queues: str, every_s: float = 1e-6) -> Reaper:
    return Reaper(ledger, app, describe(*queues), every_s=every_s, grace_s=30)


def age_bells(ledger: Ledger, redis_client: redis.Redis, queue: str) -> None:
    """Lets the last bell of the queue be a minute old."""
    redis_client.hincrbyfloat(ledger.keys.dispatch, f"{queue}:at", -60)


@pytest.mark.parametrize("broker", ["redis", "memory"])
def test_the_broker_says_which_queues_are_empty(
    client: Client, ledger: Ledger, settings: Settings, queue: str, broker: str
) -> None:
    never = f"{ledger.keys.prefix}.never.bulk"
    url = None if broker == "redis" else "memory://"
    app = make_celery(settings.model_copy(update={"broker_url": url}))
    look = reaper(ledger, app, queue, never)
    assert look._find_empty([queue, never]) == [queue, never]
    ring(app, queue)
    assert look._find_empty([queue, never]) == [never]
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(queue, no_ack=False)
        assert message is not None
        assert look._find_empty([queue, never]) == [queue, never]  # heard: no longer in the queue
        message.ack()
    assert look._find_empty([queue, never]) == [queue, never]
    app.close()


def test_the_broker_is_asked_over_a_connection_that_is_there_and_again_after_it_broke(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    def count() -> int:
        return cast("dict[str, int]", redis_client.info("stats"))["total_connections_received"]

    look = reaper(ledger, app, queue)
    ring(app, queue)
    assert look._find_empty([queue]) == []
    before = count()
    for _ in range(3):
        assert look._find_empty([queue]) == []
        ring(app, queue)
    assert count() == before
    redis_client.client_kill_filter(_type="normal", skipme=True)
    assert look._find_empty([queue]) == []


def test_a_lost_bell_is_rung_once(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    jobs = [submit(client) for _ in range(3)]
    redis_client.delete(queue)
    look = reaper(ledger, app, queue)
    assert look.reap() == 0  # they may be on their way
    age_bells(ledger, redis_client, queue)
    assert look.reap() == 1, "one wakes a worker, which claims until nothing waits"
    assert redis_client.llen(queue) == 1
    age_bells(ledger, redis_client, queue)
    assert look.reap() == 0
    assert {client.get(job.id).state for job in jobs} == {"queued"}


def test_a_message_that_waits_is_not_rung_again(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    for _ in range(5):
        submit(client)
    for _ in range(2):
        age_bells(ledger, redis_client, queue)
        assert reaper(ledger, app, queue).reap() == 0
    assert redis_client.llen(queue) == 5


def test_a_lost_bell_is_rung_by_workers_that_serve_other_queues(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    submit(client)
    redis_client.delete(queue)
    age_bells(ledger, redis_client, queue)
    assert reaper(ledger, app, f"{ledger.keys.prefix}.other.bulk").reap() == 1
    assert redis_client.llen(queue) == 1


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


def test_of_two_reapers_one_makes_the_round(
    client: Client, ledger: Ledger, app: Celery, queue: str, redis_client: redis.Redis
) -> None:
    submit(client)
    first, second = (reaper(ledger, app, queue, every_s=60) for _ in range(2))
    redis_client.delete(queue)
    age_bells(ledger, redis_client, queue)
    assert first.reap() == 1
    redis_client.delete(queue)
    age_bells(ledger, redis_client, queue)
    assert second.reap() == 0, "a round was just made"
    redis_client.delete(f"{ledger.keys.prefix}:round")
    assert second.reap() == 1
