"""Many jobs at once, lists of them, and answers as they come."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from support.worker import begin, finish

from videoqa import Client, Settings, errors
from videoqa.broker import Doorbell
from videoqa.contract import Failure, Job
from videoqa.jobs import Ledger, Progress
from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


def queue_of(settings: Settings) -> str:
    return f"{settings.prefix}.default.interactive"


# -- submit_many


def test_many_jobs_are_recorded_in_their_order_and_rung_for_by_a_few_bells(
    client: Client, settings: Settings, ledger: Ledger, redis_client: redis.Redis
) -> None:
    jobs = client.submit_many({**ASKED, "custom_id": f"n{n}"} for n in range(1200))
    assert [job.custom_id for job in jobs] == [f"n{n}" for n in range(1200)]
    assert redis_client.llen(queue_of(settings)) == 64
    client.submit(ASKED)
    assert redis_client.llen(queue_of(settings)) == 64
    assert [begin(ledger, token).job_id for token in "abc"] == [job.id for job in jobs[:3]]
    assert client.get(jobs[3].id).position == 0


def test_an_error_names_the_request_and_nothing_of_its_round_trip_is_recorded(
    client: Client, redis_client: redis.Redis, settings: Settings
) -> None:
    with pytest.raises(errors.EmptyQuestion) as caught:
        client.submit_many([ASKED, ASKED, {**ASKED, "questions": [" "]}])
    assert caught.value.param == "requests.2.questions.0.text"
    assert redis_client.keys(f"{settings.prefix}:*") == []


def test_a_later_error_says_what_is_recorded(client: Client) -> None:
    requests: list[dict[str, Any]] = [ASKED] * 500 + [{**ASKED, "questions": []}]
    with pytest.raises(errors.SubmittedInPart) as caught:
        client.submit_many(requests)
    assert len(caught.value.job_ids) == 500
    assert all(client.get_many([str(job_id) for job_id in caught.value.job_ids]))
    assert isinstance(caught.value.refused[500], errors.InvalidRequest)


def test_a_queue_that_fills_up_and_a_key_of_another_request_are_told_apart(
    settings: Settings,
) -> None:
    with Client(settings=settings.model_copy(update={"max_queued": 3})) as client:
        client.submit({**ASKED, "idempotency_key": "k"})
        with pytest.raises(errors.SubmittedInPart, match="3 refused") as caught:
            client.submit_many(
                [
                    ASKED,
                    {**ASKED, "questions": ["Why?"], "idempotency_key": "k"},
                    ASKED,
                    ASKED,
                    ASKED,
                ]
            )
    kinds = {number: error.code for number, error in caught.value.refused.items()}
    assert kinds == {1: "idempotency_conflict", 3: "queue_full", 4: "queue_full"}
    assert [job_id is not None for job_id in caught.value.job_ids] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_a_redis_that_fills_up_within_a_round_trip_is_told_job_by_job(tmp_path: Path) -> None:
    large = {**ASKED, "questions": ["?" * 30_000] * 8}
    with (
        RedisServer(tmp_path, extra="maxmemory 5mb\n") as server,
        Client(server.url) as client,
        redis.Redis.from_url(server.url, decode_responses=True) as raw,
    ):
        with pytest.raises(errors.SubmittedInPart) as caught:
            client.submit_many([large] * 40)
        recorded = {f"videoqa:job:{job_id}" for job_id in caught.value.job_ids if job_id}
        assert recorded == set(raw.scan_iter("videoqa:job:*"))
        kinds = {error.code for error in caught.value.refused.values()}
        assert (len(caught.value.refused), kinds) == (40 - len(recorded), {"redis_unavailable"})
        raw.config_set("maxmemory", "1mb")  # well below: buffers that shrink make no room
        with pytest.raises(errors.RedisUnavailable, match="is full"):
            client.submit_many([large] * 40)


def test_the_same_requests_with_keys_are_the_same_jobs(client: Client) -> None:
    requests = [{**ASKED, "idempotency_key": f"k{n}"} for n in range(5)]
    first = client.submit_many([*requests, requests[0]])
    assert first[0].id == first[5].id
    assert [job.id for job in client.submit_many(requests)] == [job.id for job in first[:5]]


def test_known_jobs_are_read_together_and_if_that_fails_the_new_ones_are_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed = [{**ASKED, "idempotency_key": f"k{n}"} for n in range(5)]
    first = client.submit_many(keyed)
    monkeypatch.setattr(client._backend.ledger, "get", None)  # not one by one
    jobs = client.submit_many([*keyed, ASKED])
    assert [job.id for job in jobs[:5]] == [job.id for job in first]

    def away(job_ids: object) -> None:
        raise errors.RedisUnavailable("away")

    monkeypatch.setattr(client._backend.ledger, "get_many", away)
    with pytest.raises(errors.SubmittedInPart) as caught:
        client.submit_many([keyed[0], ASKED])
    assert caught.value.job_ids[0] is None
    assert str(caught.value.job_ids[1]).startswith("job_")
    assert list(caught.value.refused) == [0]


def test_one_key_under_64_threads_makes_one_job(client: Client) -> None:
    ids: list[str] = []

    def submit() -> None:
        ids.append(client.submit({**ASKED, "idempotency_key": "k"}).id)

    threads = [threading.Thread(target=submit) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 64
    assert len(set(ids)) == 1


@pytest.mark.parametrize("broker", ["away", "memory"])
def test_jobs_whose_bells_are_not_heard_there_are_recorded(
    settings: Settings, broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0" if broker == "away" else "memory://"
    with Client(settings=settings.model_copy(update={"broker_url": url})) as client:
        jobs = client.submit_many([ASKED] * 3)
        assert all(client.get_many([job.id for job in jobs]))
    assert ("what was recorded waits" in caplog.text) == (broker == "away")


def test_a_broker_that_went_away_after_it_was_used_costs_no_job(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        RedisServer(tmp_path / "broker") as broker,
        Client(settings=settings.model_copy(update={"broker_url": broker.url})) as client,
    ):
        client.submit_many([ASKED] * 3)
        broker.stop()
        jobs = client.submit_many([ASKED] * 3)
        assert all(client.get_many([job.id for job in jobs]))
    assert "what was recorded waits" in caplog.text


def test_a_record_that_is_lost_right_after_it_was_made_was_acknowledged(
    client: Client, redis_client: redis.Redis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(_: Doorbell, queues: Sequence[str]) -> None:
        assert redis_client.delete(*redis_client.keys(ledger.keys.job("*"))) == len(queues)  # type: ignore[misc]

    monkeypatch.setattr(Doorbell, "ring", lose)
    job = client.submit(ASKED)
    assert job.state == "queued"
    assert client.get_many([job.id]) == [None]


# -- get_many and list


def test_many_jobs_are_read_in_the_order_of_their_ids(client: Client) -> None:
    jobs = client.submit_many([ASKED] * 3)
    ids = [jobs[2].id, "job_never", jobs[0].id]
    found = client.get_many(ids)
    assert [job.id if job else None for job in found] == [jobs[2].id, None, jobs[0].id]
    assert client.get_many([]) == []
    assert client.get_many(["job_\ud800"]) == [None]


def test_jobs_are_listed_newest_first_page_by_page(client: Client) -> None:
    jobs: list[Job] = []
    for n in range(5):
        jobs.append(client.submit({**ASKED, "tags": ["odd" if n % 2 else "even", "all"]}))
    newest = [job.id for job in reversed(jobs)]
    first = client.list(limit=2)
    second = client.list(limit=2, cursor=first.next_cursor)
    third = client.list(limit=2, cursor=second.next_cursor)
    assert [job.id for page in (first, second, third) for job in page.jobs] == newest
    assert third.next_cursor is None
    assert [job.id for job in client.list(tag="odd").jobs] == newest[1::2]
    assert client.list(tag="none").jobs == ()
    assert client.list(tag="all", limit=5).next_cursor is None
    assert client.list().jobs[0].tags == ("even", "all")


def test_jobs_are_listed_by_state(client: Client, ledger: Ledger, settings: Settings) -> None:
    jobs = client.submit_many([{**ASKED, "tags": ["t"]}] * 6)
    claim = begin(ledger)
    finish(ledger, claim, q1="a cat")
    running = begin(ledger, "u")
    client.cancel(jobs[5].id)
    assert [job.id for job in client.list(state="succeeded").jobs] == [claim.job_id]
    assert [job.id for job in client.list(state="running", tag="t").jobs] == [running.job_id]
    page = client.list(state="queued", limit=2)
    rest = client.list(state="queued", limit=2, cursor=page.next_cursor)
    assert len(page.jobs) == 2
    assert len(rest.jobs) == 1
    assert rest.next_cursor is None


def test_records_that_are_gone_leave_the_index(
    client: Client, redis_client: redis.Redis, ledger: Ledger
) -> None:
    jobs = client.submit_many([{**ASKED, "tags": ["t"]}] * 400)
    for job in jobs:
        redis_client.delete(ledger.keys.job(job.id))
    client.submit_many(
        [{**ASKED, "tags": ["t"]}] * 600
    )  # one of 16 looks at the oldest and at others
    assert redis_client.zcard(ledger.keys.job_list("any", of="tag=t")) < 800
    assert len(client.list(tag="t", limit=1000).jobs) == 600
    assert redis_client.zcard(ledger.keys.job_list("any", of="tag=t")) == 600


def test_no_job_is_left_out_of_pages_when_the_last_of_one_is_gone(
    client: Client, redis_client: redis.Redis, ledger: Ledger
) -> None:
    """Ids are made before any of the jobs is recorded: ordered by an id's time, most would be skipped."""
    client.submit_many([ASKED] * 20)
    first = client.list(limit=5)
    redis_client.delete(ledger.keys.job(first.jobs[-1].id))
    redis_client.zrem(ledger.keys.job_list("open"), first.jobs[-1].id)
    rest = client.list(cursor=first.next_cursor)
    assert len({job.id for job in (*first.jobs, *rest.jobs)}) == 20


def test_no_job_is_left_out_when_the_last_record_of_a_round_trip_is_gone(
    client: Client, redis_client: redis.Redis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa.backends.redis_backend.MOST_READ", 10)
    jobs = client.submit_many([ASKED] * 25)
    redis_client.delete(ledger.keys.job(jobs[15].id))
    pages = [client.list(limit=10)]
    while cursor := pages[-1].next_cursor:
        pages.append(client.list(limit=10, cursor=cursor))
    assert len({job.id for page in pages for job in page.jobs}) == 24


def test_a_cursor_or_a_state_that_is_none_is_refused(client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match="next_cursor"):
        client.list(cursor="page 2")
    with pytest.raises(errors.InvalidRequest, match="expected one of queued, running"):
        client.list(state="done")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_page_has_a_size(client: Client, limit: int) -> None:
    with pytest.raises(errors.InvalidRequest, match="expected 1 to 1000"):
        client.list(limit=limit)


# -- stream


def test_text_comes_as_it_is_generated_and_a_later_attempt_begins_again(
    client: Client, ledger: Ledger, settings: Settings
) -> None:
    job = client.submit({**ASKED, "stream": True, "questions": ["a?", "b?"]})
    claim = begin(ledger)
    ledger.progress(job.id, "t", Progress("generating", question_id="q1", text="A c"))
    pieces = client.stream(job.id, timeout_s=60)
    assert next(pieces).text == "A c"
    failure = Failure(code="worker_lost", message="gone", retryable=True, attempt=1)
    ledger.fail(job.id, claim.token, failure, delay_s=0)
    ledger.reap(grace_s=60)
    claim = begin(ledger)
    ledger.progress(job.id, "t", Progress("generating", question_id="q1", text="A cat"))
    finish(ledger, claim, q1="A cat", q2="Two")
    found = [(piece.attempt, piece.question_id, piece.text) for piece in pieces]
    assert found == [(2, "q1", "A cat"), (2, "q2", "Two")]


def test_the_stream_of_a_job_without_stream_is_its_answers(
    client: Client, ledger: Ledger, settings: Settings
) -> None:
    job = client.submit(ASKED)
    finish(ledger, begin(ledger), q1="A cat")
    assert [piece.text for piece in client.stream(job.id)] == ["A cat"]


def test_the_stream_of_a_job_that_fails_says_so(client: Client) -> None:
    job = client.submit(ASKED)
    client.cancel(job.id)
    with pytest.raises(errors.JobFailed, match="canceled"):
        list(client.stream(job.id))
    other = client.submit(ASKED)
    with pytest.raises(errors.WaitTimeout):
        list(client.stream(other.id, timeout_s=0.1))
    assert client.get(other.id).state == "queued"
