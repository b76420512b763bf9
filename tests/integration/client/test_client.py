"""The client against a real Valkey. The worker's side is played by calls of the ledger."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import redis
from kombu.transport.redis import Channel

from videoqa import Client, Event, Job, JobRequest, Result, Settings, errors
from videoqa.contract import (
    Answer,
    Failure,
    GenerationInForce,
    Sampling,
    Usage,
)
from videoqa.jobs import Ledger, Progress, connect, queue_name
from videoqa.storage import ObjectStore
from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


@pytest.fixture
def bells(settings: Settings, redis_client: redis.Redis) -> Callable[[], list[str]]:
    """The queues in the bells that lie in the broker's default queue."""

    def lying() -> list[str]:
        messages = redis_client.lrange(f"{settings.prefix}.default.interactive", 0, -1)
        assert isinstance(messages, list)
        return [_read_bell(json.loads(message)) for message in messages]

    return lying


def _read_bell(message: dict[str, str]) -> str:
    (queue,), _, _ = json.loads(base64.b64decode(message["body"]))
    return str(queue)


def start(ledger: Ledger, job: Job, attempt: int = 1) -> None:
    """Claims the job, whose turn it is; the token is the attempt's number."""
    queue = queue_name(ledger.keys.prefix, job.model, job.priority)
    claim = ledger.claim([queue], worker=job.id, lease_s=30, token=str(attempt)).claim
    assert claim is not None
    assert (claim.job_id, claim.attempt) == (job.id, attempt)


def result_of(job: Job, text: str = "a cat") -> Result:
    now = datetime.now(UTC)
    return Result(
        job_id=job.id,
        answers=(
            Answer(
                question_id="q1",
                question="What is it?",
                text=text,
                finish_reason="stop",
                input_tokens=5,
                output_tokens=2,
            ),
        ),
        frames=(),
        sources=(),
        model="demo",
        sampling=Sampling(),
        generation=GenerationInForce(),
        usage=Usage(),
        attempt=1,
        created_at=job.created_at,
        finished_at=now,
    )


def fail(ledger: Ledger, job_id: str, attempt: int = 1) -> None:
    failure = Failure(code="source_not_found", message="no such clip", attempt=attempt)
    assert ledger.fail(job_id, str(attempt), failure, delay_s=0) == "failed"


def later(delay_s: float, call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(delay_s, call)
    timer.start()
    return timer


# -- submit and get


def test_a_submitted_job_is_queued_and_says_why_it_waits(client: Client) -> None:
    job = client.submit(**ASKED, custom_id="mine", metadata={"tenant": "a"}, priority="bulk")
    found = client.get(job.id)
    waits = {"position": 0, "waiting_for": "no running worker serves any model"}
    assert found == job.model_copy(update=waits)
    assert (found.state, found.attempt) == ("queued", 0)
    assert (job.custom_id, job.metadata, job.priority) == ("mine", {"tenant": "a"}, "bulk")


def test_keywords_a_mapping_and_a_request_make_the_same_job(client: Client, ledger: Ledger) -> None:
    forms = [
        client.submit(**ASKED),
        client.submit(ASKED),
        client.submit(JobRequest.model_validate(ASKED)),
    ]
    assert len({job.id for job in forms}) == 3
    assert len({ledger.request(job.id).model_dump_json() for job in forms}) == 1


def test_a_worker_gets_the_request_as_it_was_submitted(client: Client, ledger: Ledger) -> None:
    request = JobRequest.model_validate(
        {
            "inputs": ["s3://b/clip.mp4", {"kind": "image", "url": "s3://b/no-suffix"}],
            "questions": ["<image> <video>?"],
            "generation": {"stop": ["\n"], "seed": 7, "temperature": 0.5},
            "metadata": {"note": "Ünïcode ✓"},
        }
    )
    job = client.submit(request)
    assert ledger.request(job.id) == request


def test_a_bell_of_each_job_lies_in_the_brokers_queue(
    client: Client, bells: Callable[[], list[str]], settings: Settings
) -> None:
    for _ in range(2):
        client.submit(ASKED)
    assert bells() == [f"{settings.prefix}.default.interactive"] * 2


def test_a_wrong_request_is_refused_and_nothing_is_recorded(
    client: Client, settings: Settings, redis_client: redis.Redis
) -> None:
    with pytest.raises(errors.NoMedia):
        client.submit(inputs=[], questions=["What is it?"])
    with pytest.raises(errors.InvalidRequest, match=r"keywords \['priority'\]"):
        client.submit(ASKED, priority="bulk")
    with pytest.raises(errors.InvalidRequest, match="1048576"):
        client.submit(ASKED | {"questions": ["?" * 32_768] * 64})
    assert list(redis_client.scan_iter(f"{settings.prefix}*")) == []


def test_an_unknown_job_is_not_found(client: Client) -> None:
    for call in (client.get, client.wait, client.result, client.cancel, client.retry):
        with pytest.raises(errors.JobNotFound, match="job_nope"):
            call("job_nope")
    with pytest.raises(errors.JobNotFound):
        next(client.events("job_nope"))


def test_an_id_that_is_no_text_is_of_no_job(client: Client) -> None:
    for call in (client.get, client.wait, client.cancel, client.retry, client.purge):
        with pytest.raises(errors.JobNotFound, match="job_"):
            call("job_\ud800")
        with pytest.raises(errors.InvalidRequest, match="got job id None, expected text"):
            call(cast("str", None))


def test_sixteen_threads_with_one_idempotency_key_make_one_job_and_one_bell(
    client: Client, bells: Callable[[], list[str]]
) -> None:
    gate = threading.Barrier(16)

    def submit(_: int) -> str:
        gate.wait(60)
        return client.submit(**ASKED, idempotency_key="order-17").id

    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(submit, range(16)))
    assert len(ids) == 1
    assert len(bells()) == 1
    with pytest.raises(errors.IdempotencyConflict, match=next(iter(ids))):
        client.submit(inputs=["s3://b/other.mp4"], questions=["?"], idempotency_key="order-17")


# -- wait and events


def test_wait_returns_when_a_worker_finishes_the_job(client: Client, ledger: Ledger) -> None:
    job = client.submit(ASKED)
    start(ledger, job)
    timer = later(
        0.1, lambda: ledger.finish(job.id, "1", result=result_of(job), result_url="file:///r")
    )
    done = client.wait(job.id, timeout_s=60)
    timer.join()
    assert (done.state, done.attempt) == ("succeeded", 1)
    assert client.wait(job.id) == done


def test_wait_gives_up_at_its_timeout_and_the_job_goes_on(client: Client) -> None:
    job = client.submit(ASKED)
    with pytest.raises(errors.WaitTimeout, match=r"within 0\.05 s; it continues: wait again"):
        client.wait(job.id, timeout_s=0.05)
    with pytest.raises(errors.WaitTimeout):
        client.wait(job.id, timeout_s=0)
    assert client.get(job.id).state == "queued"


def test_wait_follows_a_job_that_was_retried(client: Client, ledger: Ledger) -> None:
    job = client.submit(ASKED)
    start(ledger, job)
    fail(ledger, job.id)
    client.retry(job.id)

    def second_attempt() -> None:
        start(ledger, job, 2)
        ledger.finish(job.id, "2", result=None, result_url="file:///r")

    timer = later(0.1, second_attempt)
    seen: list[Event] = []
    done = client.wait(job.id, timeout_s=60, on_event=seen.append)
    timer.join()
    assert (done.state, done.attempt) == ("succeeded", 2)
    assert [event.state for event in seen if event.type == "state"] == [
        "queued", "running", "failed", "queued", "running", "succeeded",
    ]  # fmt: skip


def test_events_come_in_order_and_go_on_after_any_of_them(client: Client, ledger: Ledger) -> None:
    job = client.submit(ASKED)
    start(ledger, job)
    for done in (1, 2):
        ledger.progress(job.id, "1", Progress("sampling", message="clip.mp4", done=done, total=2))
    ledger.finish(job.id, "1", result=None, result_url="file:///r")
    seen = list(client.events(job.id))
    assert [(event.type, event.state, event.stage, event.done) for event in seen] == [
        ("state", "queued", None, None),
        ("state", "running", "fetching", None),
        ("stage", "running", "sampling", 1),
        ("progress", "running", "sampling", 2),
        ("state", "succeeded", None, None),
    ]
    assert [event.at for event in seen] == sorted(event.at for event in seen)
    for n, event in enumerate(seen):
        assert list(client.events(job.id, after=event.id)) == seen[n + 1 :]


def test_events_of_a_job_that_does_not_end_stop_at_their_timeout(client: Client) -> None:
    job = client.submit(ASKED)
    stream = client.events(job.id, timeout_s=0.05)
    assert next(stream).state == "queued"
    with pytest.raises(errors.WaitTimeout):
        next(stream)


# -- results


def test_a_small_result_is_read_from_redis(client: Client, ledger: Ledger) -> None:
    job = client.submit(ASKED)
    start(ledger, job)
    with pytest.raises(errors.JobNotFinished, match="is running"):
        client.result(job.id)
    result = result_of(job)
    ledger.finish(job.id, "1", result=result, result_url="file:///nowhere")
    assert client.result(job.id) == result


def test_a_large_result_is_read_from_object_storage(
    client: Client, ledger: Ledger, tmp_path: Path
) -> None:
    job = client.submit(ASKED)
    start(ledger, job)
    result = result_of(job, "x" * 200_000)
    path = tmp_path / "odd name %20" / "r.json"
    ObjectStore().write(path.as_uri(), result.model_dump_json().encode())
    ledger.finish(job.id, "1", result=None, result_url=path.as_uri())
    assert client.result(job.id) == result
    path.write_text("{}")
    with pytest.raises(errors.OutputNotFound, match="overwrote"):
        client.result(job.id)
    path.unlink()
    with pytest.raises(errors.OutputNotFound, match="does not exist"):
        client.result(job.id)


def test_a_job_that_ended_badly_has_no_result_and_says_why(client: Client, ledger: Ledger) -> None:
    failed, canceled = client.submit(ASKED), client.submit(ASKED)
    start(ledger, failed)
    fail(ledger, failed.id)
    client.cancel(canceled.id)
    with pytest.raises(errors.JobFailed, match=r"failed: no such clip \(source_not_found\)"):
        client.result(failed.id)
    with pytest.raises(errors.JobFailed, match="canceled"):
        client.result(canceled.id)


# -- cancel and retry


def test_cancel_ends_a_queued_job_and_asks_a_running_one_to_stop(
    client: Client, ledger: Ledger
) -> None:
    running, queued = client.submit(ASKED), client.submit(ASKED)
    start(ledger, running)
    assert client.cancel(queued.id).state == "canceled"
    assert client.cancel(running.id).state == "canceling"
    ledger.finish(running.id, "1", result=None, result_url="u")
    assert client.cancel(running.id).state == "canceled"


def test_retry_reopens_a_job_and_rings_once_more(
    client: Client, ledger: Ledger, bells: Callable[[], list[str]]
) -> None:
    job = client.submit(ASKED)
    with pytest.raises(errors.NotRetryable, match="queued"):
        client.retry(job.id)
    start(ledger, job)
    fail(ledger, job.id)
    again = client.retry(job.id)
    assert (again.id, again.state, again.failure) == (job.id, "queued", None)
    assert len(bells()) == 2
    assert client.workers() == []
    assert client.ping().startswith(("Valkey ", "Redis "))


# -- faults


def test_a_refused_connection_is_redis_unavailable() -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    with Client(url) as client, pytest.raises(errors.RedisUnavailable) as caught:
        client.submit(ASKED)
    assert "correct the URL of this client" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize("login", ["", ":secret@"])
def test_a_server_that_never_answers_is_reported_after_one_socket_timeout(login: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://{login}127.0.0.1:{silent.getsockname()[1]}/0"
        settings = Settings(redis_url=url, socket_timeout_s=2.1)
        began_s = time.monotonic()
        with Client(settings=settings) as client, pytest.raises(errors.RedisUnavailable):
            client.submit(ASKED)
        assert 2.1 <= time.monotonic() - began_s < 2 * 2.1  # not time-out after time-out


def test_a_wrong_password_is_said_so(redis_server: RedisServer) -> None:
    url = redis_server.url.replace(redis_server.password, "wrong")
    with Client(url) as client, pytest.raises(errors.RedisUnavailable, match="refused the login"):
        client.get("job_x")


@pytest.mark.parametrize(
    "url",
    [
        "valkey://:secret@h/0",
        "redis://:secret@h:99999/0",
        "redis://:secret@[x",
        "redis://:secret@h/first",
        "redis://:pass/secret@h/0",
        "redis://:secret@h/0?unheard_of=1",
    ],
)
def test_a_redis_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="the URL of this client") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_database_that_the_server_does_not_have_is_said_so(redis_server: RedisServer) -> None:
    url = redis_server.url.removesuffix("/0") + "/99"
    with (
        Client(url) as client,
        pytest.raises(errors.ConfigurationError, match="the URL of this client"),
    ):
        client.submit(ASKED)


def test_a_socket_of_this_machine_is_as_good_as_a_port(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, extra="unixsocket r.sock\n")
    try:
        with Client(f"unix://:{server.password}@{tmp_path}/r.sock?db=1") as client:
            job = client.submit(ASKED)
            with pytest.raises(errors.WaitTimeout):
                client.wait(job.id, timeout_s=0)
    finally:
        server.stop()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense://:secret@h/",
        "secret",
        "redis://:secret@h/first",
        "redis://:secret@[x",
        "redis://:secret@h/0?unheard_of=1",
        "sentinel://:secret@h/first",
        "unix://:secret@/r.sock?db=first",
        "redis://:secret@h/0;redis://:secret@g/first",
    ],
)
def test_a_broker_url_that_cannot_be_used_is_refused_and_nothing_is_recorded(
    settings: Settings, redis_client: redis.Redis, url: str
) -> None:
    wrong = settings.model_copy(update={"broker_url": url})
    with Client(settings=wrong) as client, pytest.raises(errors.ConfigurationError) as caught:
        client.submit(ASKED)
    assert "VIDEOQA_BROKER_URL" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list(redis_client.scan_iter(f"{settings.prefix}*")) == []


def test_a_job_whose_bell_could_not_be_published_is_recorded_all_the_same(
    settings: Settings, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = settings.model_copy(update={"broker_url": f"redis://:secret@127.0.0.1:{free_port()}/0"})
    with Client(settings=deaf) as client, caplog.at_level(logging.WARNING, "videoqa"):
        job = client.submit(ASKED)
    assert job.state == "queued"
    assert "what was recorded waits" in caplog.text
    assert "secret" not in caplog.text
    queue = f"{settings.prefix}.default.interactive"
    assert ledger.reap(grace_s=0).doubtful == [queue]
    assert ledger.ring_again([queue]) == [queue]


def test_a_full_redis_refuses_jobs_and_records_nothing_of_them(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis", extra="maxmemory 3mb\n") as server,
        Client(server.url) as client,
        redis.Redis.from_url(server.url, decode_responses=True) as raw,
    ):
        accepted = _fill(client)
        raw.config_set("maxmemory", "1mb")  # well below: buffers that shrink make no room
        before = sorted(raw.scan_iter("videoqa:*"))
        for n in range(5):
            with pytest.raises(errors.RedisUnavailable, match="is full"):
                client.submit(**ASKED, idempotency_key=str(n))
        assert sorted(raw.scan_iter("videoqa:*")) == before
        recorded = [key for key in before if key.startswith("videoqa:job:")]
        assert recorded == sorted(f"videoqa:job:{job_id}" for job_id in accepted)
        raw.config_set("maxmemory", "0")
        assert client.submit(ASKED).state == "queued"


def _fill(client: Client) -> list[str]:
    accepted: list[str] = []
    while len(accepted) < 1000:
        try:
            accepted.append(client.submit(ASKED | {"questions": ["?" * 30_000]}).id)
        except errors.RedisUnavailable:
            return accepted
    raise AssertionError("Redis was never full")


def test_a_full_redis_lets_running_jobs_go_on_and_end(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis", extra="maxmemory 3mb\n") as server,
        Client(server.url) as client,
        connect(client.settings) as raw,
    ):
        ledger = Ledger(raw, url=server.url)
        running, failing, queued = (client.submit(ASKED) for _ in range(3))
        for job in (running, failing):
            start(ledger, job)
        _fill(client)
        assert ledger.renew([(running.id, "1"), (failing.id, "1")], lease_s=30) == ["ok", "ok"]
        assert ledger.progress(running.id, "1", Progress("storing")) == "ok"
        assert ledger.finish(running.id, "1", result=result_of(running), result_url="u") == "ok"
        fail(ledger, failing.id)
        assert client.cancel(queued.id).state == "canceled"
        assert ledger.reap(grace_s=60).ring == []
        assert client.wait(running.id).state == "succeeded"


def test_dead_jobs_say_why_and_are_replayed_or_purged(client: Client, ledger: Ledger) -> None:
    jobs = [client.submit(**ASKED) for _ in range(3)]
    for job in jobs:
        start(ledger, job)
        fail(ledger, job.id)
    assert {job.id for job in client.dead()} == {job.id for job in jobs}
    assert {job.failure.code for job in client.dead() if job.failure} == {"source_not_found"}
    client.purge(jobs[0].id)
    with pytest.raises(errors.JobExpired):
        client.purge(jobs[0].id)
    for job in client.dead():
        assert client.retry(job.id).state == "queued"
    assert list(client.dead()) == []
    with pytest.raises(errors.NotRetryable, match="is queued"):
        client.purge(jobs[1].id)


def test_all_dead_jobs_of_one_code_are_replayed_at_once(client: Client, ledger: Ledger) -> None:
    jobs = [client.submit(**ASKED) for _ in range(3)]
    for job in jobs:
        start(ledger, job)
        fail(ledger, job.id)
    assert client.replay(code="decoder_crashed") == []
    assert {job.id for job in client.replay(code="source_not_found")} == {job.id for job in jobs}
    assert {client.get(job.id).state for job in jobs} == {"queued"}
    assert client.replay() == []


def test_a_full_queue_refuses_until_there_is_room(settings: Settings, ledger: Ledger) -> None:
    small = settings.model_copy(update={"max_queued": 2})
    with Client(settings=small) as client:
        first, _ = client.submit(**ASKED), client.submit(**ASKED)
        with pytest.raises(errors.QueueFull, match="VIDEOQA_MAX_QUEUED"):
            client.submit(**ASKED)
        client.cancel(first.id)
        assert client.submit(**ASKED).state == "queued"


def test_a_channel_that_breaks_under_the_bell_loses_no_job(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plays a race that was seen when Redis became full between the record and the bell."""

    def put(channel: Channel, *_: object, **__: object) -> None:
        channel.close()
        assert channel._get_pool()

    monkeypatch.setattr(Channel, "_put", put)
    job = client.submit(**ASKED)
    assert client.get(job.id).state == "queued"
