"""Lists of jobs by state, tag, tenant, model and time: a page reads its own jobs, however many others there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from support.redis import read_commands
from support.worker import begin, finish

from videoqa import Client, Job, errors
from videoqa.contract import Failure, JobPage, JobState
from videoqa.jobs import Ledger

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
MANY = 3000


@pytest.fixture
def count(redis_client: redis.Redis) -> Callable[[Callable[[], object]], Counter[str]]:
    """Returns a function that counts the server's commands during a call; the server serves this test alone."""

    def count(call: Callable[[], object]) -> Counter[str]:
        before = read_commands(redis_client)
        call()
        return read_commands(redis_client) - before

    return count


def fail(ledger: Ledger, token: str = "t") -> str:
    claim = begin(ledger, token)
    failure = Failure(code="x", message="x", retryable=False, attempt=1)
    assert ledger.fail(claim.job_id, token, failure, delay_s=0) == "failed"
    return claim.job_id


def ids_of(found: JobPage | list[Job]) -> list[str]:
    return [job.id for job in (found.jobs if isinstance(found, JobPage) else found)]


def walk(client: Client, **which: Any) -> Iterator[JobPage]:
    page = client.list(**which)
    yield page
    while page.next_cursor:
        page = client.list(cursor=page.next_cursor, **which)
        yield page


def test_a_page_costs_its_own_records_among_thousands(
    client: Client, ledger: Ledger, count: Callable[[Callable[[], object]], Counter[str]]
) -> None:
    few = {"tags": ["few"], "tenant": "few", "model": None}
    for _ in range(3):
        client.submit({**ASKED, **few})
    for n in range(3):
        finish(ledger, begin(ledger, f"done {n}"), q1="a cat") if n else fail(ledger)
    client.submit_many([{**ASKED, "tags": ["many"], "model": "m"}] * MANY)
    running = client.submit(ASKED)
    begin(ledger, "runs")
    client.submit_many([ASKED] * 3)
    pages: list[tuple[dict[str, Any], int]] = [
        ({"state": "failed"}, 1),
        ({"state": "succeeded"}, 2),
        ({"state": "running"}, 1),
        ({"state": "canceling"}, 0),
        ({"tag": "few"}, 3),
        ({"state": "succeeded", "tag": "few"}, 2),
        ({"state": "queued", "limit": 5}, 5),
        ({"model": "m", "limit": 5}, 5),
        ({"until": running.created_at, "limit": 5}, 5),
        ({"since": running.created_at}, 4),
        ({"tag": "few", "model": "m"}, 0),
    ]
    for which, size in pages:
        found: list[JobPage] = []
        calls = count(lambda which=which, found=found: found.append(client.list(**which)))  # type: ignore[misc]
        assert len(found[0].jobs) == size, which
        assert calls["hmget"] <= 40, (which, calls)
        assert calls.total() <= 60, (which, calls)
    of_few = client.for_tenant("few")
    assert count(lambda: of_few.list(state="succeeded")).total() <= 10
    assert len(of_few.list().jobs) == 3


def test_a_job_is_in_the_list_of_its_state_and_in_no_other(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    """Each list names the same job, since a job stands in it as long as its state lasts."""

    def states_of(job_id: str) -> set[JobState]:
        states: tuple[JobState, ...] = (
            "queued", "running", "canceling", "succeeded", "failed", "canceled", "expired",
        )  # fmt: skip
        which: list[dict[str, Any]] = [{}, {"tag": "t"}, {"model": "m"}, {"tag": "t", "model": "m"}]
        clients = (client, client.for_tenant("a:b%"))
        found = [
            {state for state in states if job_id in ids_of(of.list(state=state, **one))}
            for of in clients
            for one in which
        ]
        assert all(one == found[0] for one in found), found
        stands_in = [
            key for key in redis_client.scan_iter(f"{ledger.keys.prefix}:list:*")
            if redis_client.zscore(key, job_id) is not None
        ]  # fmt: skip
        dead = [key for key in stands_in if ":list:dead:" in key]
        assert len(dead) == (4 if found[0] == {"failed"} else 0)  # two owners; all, and the code
        assert len(stands_in) - len(dead) == 6  # two owners; all, the tag and the model
        assert len({key.split(":")[2] for key in stands_in} - {"any", "dead"}) == 1
        return found[0]

    job_id = client.submit({**ASKED, "tags": ["t", "t"], "model": "m", "tenant": "a:b%"}).id
    queue = f"{ledger.keys.prefix}.m.interactive"

    def claim(token: str) -> None:
        assert ledger.claim([queue], worker="w", lease_s=60, token=token).claim

    assert states_of(job_id) == {"queued"}
    claim("1")
    assert states_of(job_id) == {"running"}
    ledger.release(job_id, "1")
    assert states_of(job_id) == {"queued"}
    claim("2")
    failure = Failure(code="x", message="x", retryable=True, attempt=1)
    assert ledger.fail(job_id, "2", failure, delay_s=60) == "retry"
    assert states_of(job_id) == {"queued"}
    client.cancel(job_id)
    assert states_of(job_id) == {"canceled"}
    client.retry(job_id)
    assert states_of(job_id) == {"queued"}
    claim("3")
    client.cancel(job_id)
    assert states_of(job_id) == {"canceling"}
    assert ledger.finish(job_id, "3", result=None, result_url="u") == "cancel"
    assert states_of(job_id) == {"canceled"}
    client.retry(job_id)
    claim("4")
    assert (
        ledger.fail(job_id, "4", failure.model_copy(update={"retryable": False}), delay_s=0)
        == "failed"
    )
    assert states_of(job_id) == {"failed"}
    client.purge(job_id)
    assert not list(redis_client.scan_iter(f"{ledger.keys.prefix}:list:*"))


def test_pages_by_tag_and_model_leave_nothing_out(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa.backends.redis_backend.MOST_READ", 20)
    monkeypatch.setattr("videoqa.backends.redis_backend.MOST_LOOKED_AT", 40)
    made = client.submit_many(
        [
            {**ASKED, "tags": ["a"] if n % 2 else ["b"], "model": "m" if n % 3 else "n"}
            for n in range(200)
        ]
    )
    pages = list(walk(client, tag="a", model="n", limit=4))
    wanted = {job.id for n, job in enumerate(made) if n % 2 and n % 3 == 0}
    listed = [job_id for page in pages for job_id in ids_of(page)]
    assert sorted(listed) == sorted(wanted)
    assert max(len(page.jobs) for page in pages) <= 4
    assert not ids_of(client.list(tag="b", model="none", limit=20))


def test_lists_of_a_time_begin_and_end_there(client: Client) -> None:
    jobs = [client.submit(ASKED) for _ in range(5)]
    listed = client.list(since=jobs[1].created_at, until=jobs[3].created_at)
    assert ids_of(listed) == [jobs[2].id, jobs[1].id]
    pages = list(walk(client, since=jobs[1].created_at, until=jobs[4].created_at, limit=1))
    assert [ids_of(page) for page in pages] == [[jobs[n].id] for n in (3, 2, 1)]
    assert not client.list(since=datetime.now(UTC) + timedelta(hours=1)).jobs


@pytest.mark.parametrize(
    "which", [{"model": ""}, {"tag": "\ud800"}, {"since": datetime(2026, 1, 1)}, {"until": "1h"}]
)
def test_a_filter_that_is_none_is_refused(client: Client, which: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequest, match="expected") as refused:
        client.list(**which)
    assert refused.value.param == next(iter(which))


def test_lists_of_jobs_that_ended_shrink_with_their_records(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    keys = [ledger.keys.job_list("canceled"), ledger.keys.job_list("any", of="tag=t")]
    for _ in range(2):
        for job in client.submit_many([{**ASKED, "tags": ["t"]}] * 300):
            client.cancel(job.id)
            redis_client.delete(ledger.keys.job(job.id))
    assert all(redis_client.zcard(key) < 400 for key in keys)
    assert redis_client.ttl(keys[1]) > 90 * 86400
    assert not client.list(tag="t").jobs


def test_a_list_by_tag_lives_as_long_as_its_jobs(
    client: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    client.submit({**ASKED, "tags": ["t"]})
    key = ledger.keys.job_list("any", of="tag=t")
    redis_client.expire(key, 1000)  # 99 days later
    client.retry(fail(ledger))
    assert redis_client.ttl(key) > 90 * 86400
    redis_client.expire(key, 1000)
    finish(ledger, begin(ledger, "u"), q1="a cat")
    assert redis_client.ttl(key) > 90 * 86400


def test_filters_combine_whatever_their_texts_are_made_of(client: Client, ledger: Ledger) -> None:
    odd = ['a"tag=x\\', "x", "tag=x", "Ünï/ \u2028%:\U0001f600", '"', "\\"]
    jobs = {tag: client.submit({**ASKED, "tags": [tag], "custom_id": tag}).id for tag in odd}
    for tag, job_id in jobs.items():
        assert ids_of(client.list(tag=tag, state="queued")) == [job_id]
        assert job_id in ids_of(client.list(custom_id=tag[:1], tag=tag))
        assert ids_of(client.list(job_id=job_id, tag=tag)) == [job_id]
        assert client.count(tag=tag, state="queued", custom_id=tag).count == 1
    claim = begin(ledger)
    assert ids_of(client.list(worker="host:1")) == [claim.job_id]
    assert ids_of(client.list(job_id=claim.job_id[:-1])) == [claim.job_id]
    assert not ids_of(client.list(job_id=claim.job_id, state="queued"))
    finish(ledger, claim, q1="a cat")
    ended = client.get(claim.job_id).finished_at
    assert ids_of(client.list(state="succeeded", ended_since=ended)) == [claim.job_id]
    assert not ids_of(client.list(state="succeeded", ended_until=ended))
    with pytest.raises(errors.InvalidRequest, match="expected failed or none"):
        client.list(state="succeeded", code="model_error")


def test_a_filter_that_nothing_matches_ends_its_page_and_its_count(
    client: Client, count: Callable[[Callable[[], object]], Counter[str]]
) -> None:
    client.submit_many([{**ASKED, "tags": ["t"]}] * 2500)
    pages: list[JobPage] = []
    client.list(custom_id="none", tag="t", limit=1)  # loads the script, which is a command more
    calls = count(lambda: pages.append(client.list(custom_id="none", tag="t", limit=10)))
    assert (pages[0].looked_at, pages[0].next_cursor, calls["evalsha"]) == (2500, None, 3)
    page = client.list(text="zebra", limit=10)
    assert (page.jobs, page.looked_at) == ((), 2000)
    assert ids_of(client.list(text="zebra", cursor=page.next_cursor)) == []
    found = client.count(text="What is", tag="t")
    assert (found.text, found.is_exact, found.looked_at) == ("2,000+", False, 2000)
    assert client.count(tag="t").text == "2,500"
    assert count(lambda: client.count(tag="t")).total() <= 4
