"""Tenants are walls: to the client of one, the jobs of the others are as if they had never been."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import redis
from support.worker import begin, fail, finish

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.contract import Job
from videoqa.jobs import Ledger
from videoqa.testing import InMemoryClient

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"], "tags": ["t"]}
HAS_NO_JOB_ID = {
    "submit", "submit_many", "list", "dead", "replay", "queues", "pause", "resume", "workers", "ping",
    "close", "for_tenant", "from_environment", "usage", "count", "count_dead", "group_dead",
    "announce_run", "runs", "get_run", "preview_bulk", "start_bulk", "get_bulk", "list_bulk", "stop_bulk",
    "follow_bulk", "stats",
}  # fmt: skip


@pytest.fixture
def operator(settings: Settings) -> Iterator[Client]:
    with Client(settings=settings) as client:
        yield client


@pytest.fixture
def a(operator: Client) -> Client:
    return operator.for_tenant("a")


@pytest.fixture
def b(operator: Client) -> Client:
    return operator.for_tenant("b")


def expire(redis_client: redis.Redis, ledger: Ledger, client: Client) -> Job:
    """Makes a job whose record is over, but not its tombstone."""
    job = client.submit(ASKED)
    client.cancel(job.id)
    redis_client.delete(ledger.keys.job(job.id), ledger.keys.events(job.id))
    return job


def test_what_takes_a_job_id_is_in_the_test_of_foreign_ids() -> None:
    """A new method is either there, or takes no id."""
    public = {name for name, _ in inspect.getmembers(Client, callable) if name[0] != "_"}
    assert public == {*_calls(Client)} | HAS_NO_JOB_ID
    for name in HAS_NO_JOB_ID:
        assert not {"job_id", "job_ids"} & {*inspect.signature(getattr(Client, name)).parameters}


def _calls(client: Any) -> dict[str, Callable[[str], object]]:
    return {
        "get": client.get,
        "get_many": lambda job_id: client.get_many([job_id]),
        "get_states": lambda job_id: client.get_states([job_id]),
        "result": client.result,
        "sheet": client.sheet,
        "timeline": client.timeline,
        "wait": lambda job_id: client.wait(job_id, timeout_s=60),
        "events": lambda job_id: list(client.events(job_id, timeout_s=60)),
        "stream": lambda job_id: list(client.stream(job_id, timeout_s=60)),
        "cancel": client.cancel,
        "retry": client.retry,
        "purge": client.purge,
    }


def outcome(call: Callable[[str], object], job_id: str) -> str:
    try:
        return repr(call(job_id))
    except errors.VideoQAError as error:
        return f"{type(error).__name__} {error.code} {error.param} {error}".replace(job_id, "ID")


@pytest.mark.parametrize("state", ["queued", "running", "failed", "succeeded", "expired"])
def test_a_foreign_id_and_an_unknown_one_are_the_same_answer(
    a: Client, b: Client, ledger: Ledger, redis_client: redis.Redis, state: str
) -> None:
    job = a.submit(ASKED) if state != "expired" else expire(redis_client, ledger, a)
    if state == "failed":
        fail(ledger)
    elif state in ("running", "succeeded"):
        claim = begin(ledger)
        if state == "succeeded":
            finish(ledger, claim, q1="a cat")
    unknown = job.id[:-4] + "0000"
    before = redis_client.dump(ledger.keys.job(job.id))
    for name, call in _calls(b).items():
        assert outcome(call, job.id) == outcome(call, unknown), name
        assert outcome(call, job.id) in ("[None]", outcome(b.get, unknown)), name
    assert redis_client.dump(ledger.keys.job(job.id)) == before
    if state != "expired":
        assert a.get(job.id).state == state


def test_a_foreign_id_costs_as_many_commands_as_an_unknown_one(
    a: Client, b: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    job = a.submit(ASKED)
    unknown = job.id[:-4] + "0000"
    for client in (a, b):
        for call in _calls(client).values():
            outcome(call, unknown)  # loads the scripts
    counts = []
    for job_id in (job.id, unknown):
        redis_client.config_resetstat()
        for call in _calls(b).values():
            outcome(call, job_id)
        stats = cast("dict[str, Any]", redis_client.info("commandstats"))
        counts.append([stats[f"cmdstat_{name}"]["calls"] for name in ("get", "evalsha")])
    assert counts[0] == counts[1]


def test_a_cancel_of_a_foreign_job_loses_every_race(a: Client, b: Client, ledger: Ledger) -> None:
    """The script decides: between a look and a write by another client nothing can change."""
    jobs = [a.submit(ASKED) for _ in range(20)]
    found: list[str] = []

    def disturb() -> None:
        for job in jobs:
            for name in ("cancel", "retry", "purge"):
                found.append(outcome(_calls(b)[name], job.id))

    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n, _ in enumerate(jobs):
        finish(ledger, begin(ledger, f"t{n}"), q1="a cat")
    for thread in threads:
        thread.join()
    assert {job.state for job in a.list().jobs} == {"succeeded"}
    assert set(found) == {outcome(b.get, "job_never")}


def test_lists_tags_and_dead_letters_are_a_tenants_own(
    operator: Client, a: Client, b: Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    failed_a, failed_b = [(client.submit(ASKED), fail(ledger))[1] for client in (a, b)]
    of_a, of_b = a.submit(ASKED).id, b.submit_many([ASKED])[0].id
    of_none = operator.submit(ASKED).id
    for tag in (None, "t"):
        assert [job.id for job in a.list(tag=tag).jobs] == [of_a, failed_a]
        assert [job.id for job in b.list(tag=tag).jobs] == [of_b, failed_b]
        assert [job.id for job in operator.list(tag=tag).jobs] == (
            [of_none, of_b, of_a, failed_b, failed_a]
        )
    assert [job.id for job in a.dead()] == [failed_a]
    assert [job.id for job in operator.dead()] == [failed_a, failed_b]
    assert [job.id for job in b.replay()] == [failed_b]
    assert [job.id for job in b.dead()] == []
    assert [job.id for job in operator.dead()] == [failed_a]
    a.purge(failed_a)
    assert list(operator.dead()) == []
    assert [(queue.waiting, queue.tenants) for queue in operator.queues()] == [(4, 3)]
    assert [(queue.waiting, queue.tenants) for queue in a.queues()] == [(1, 1)]
    assert operator.for_tenant("c").queues() == []
    # The lists of a tenant are read, and not those of all.
    redis_client.delete(*redis_client.scan_iter(f"{ledger.keys.prefix}:list:*::"))
    assert [job.id for job in a.list().jobs] == [of_a]


def test_names_with_colons_do_not_reach_into_each_other(operator: Client) -> None:
    one, other = operator.for_tenant("a:t"), operator.for_tenant("a")
    job = one.submit(ASKED)
    assert other.list(tag="t").jobs == other.list().jobs == ()
    assert operator.for_tenant("a%3At").list().jobs == ()
    assert [found.id for found in one.list(tag="t").jobs] == [job.id]


def test_an_idempotency_key_is_a_tenants_own(operator: Client, a: Client, b: Client) -> None:
    of_a = a.submit({**ASKED, "idempotency_key": "k"})
    of_b = b.submit({**ASKED, "questions": ["Why?"], "idempotency_key": "k"})
    of_none = operator.submit({**ASKED, "idempotency_key": "k"})
    assert len({of_a.id, of_b.id, of_none.id}) == 3
    assert a.submit({**ASKED, "idempotency_key": "k"}).id == of_a.id
    assert operator.submit({**ASKED, "tenant": "a", "idempotency_key": "k"}).id == of_a.id
    with pytest.raises(errors.IdempotencyConflict, match=of_b.id):
        b.submit({**ASKED, "idempotency_key": "k"})


def test_a_tenants_client_submits_for_no_other(a: Client, b: Client) -> None:
    assert a.submit(ASKED).tenant == a.submit({**ASKED, "tenant": "a"}).tenant == "a"
    with pytest.raises(errors.InvalidRequest, match="expected 'a' or none") as caught:
        a.submit_many([ASKED, {**ASKED, "tenant": "b"}])
    assert caught.value.param == "requests.1.tenant"
    assert b.list().jobs == ()


def test_a_job_that_waits_for_a_foreign_one_does_not_name_it(
    operator: Client, a: Client, b: Client, ledger: Ledger
) -> None:
    _, waiting = a.submit(ASKED), b.submit(ASKED)
    for name in ("t1", "t2"):
        claim = begin(ledger, name)
        ledger.lead(claim.job_id, claim.token, "key")
    assert b.get(waiting.id).waiting_for == "a job, which asks the same"
    told = [event.message for event in b._backend.ledger.read_events(waiting.id)]
    assert "waits for a job, which asks the same" in told
    assert operator.get(waiting.id).waiting_for == "a job, which asks the same"


def test_what_reaches_all_tenants_is_the_operators(operator: Client, a: Client) -> None:
    for call in (a.pause, a.resume, lambda: a.for_tenant("b")):
        with pytest.raises(errors.OperatorOnly) as caught:
            call()
        assert caught.value.code == "operator_only"
    assert a.for_tenant("a").settings.tenant == "a"
    operator.pause()


@pytest.mark.parametrize("name", ["", "x" * 129, 7, "\ud800"])
def test_a_name_that_is_none_makes_no_operator(settings: Settings, name: Any) -> None:
    says = re.escape(f"got tenant {name!r}, expected a name")
    with (
        Client(settings=settings) as client,
        pytest.raises(errors.ConfigurationError, match=says),
    ):
        client.for_tenant(name)
    with pytest.raises(errors.ConfigurationError):
        Client(settings=settings, tenant=name)


def test_clients_of_tenants_share_connections_and_close_none(
    operator: Client, redis_client: redis.Redis
) -> None:
    operator.submit(ASKED)
    before = len(redis_client.client_list())
    for n in range(50):
        with operator.for_tenant(f"t{n}") as client:
            assert client.submit(ASKED).tenant == f"t{n}"
    # Other tests' clients may come meanwhile; 50 more would be those of the tenants.
    assert len(redis_client.client_list()) < before + 25
    assert operator.ping()


def test_the_environment_names_the_tenant(settings: Settings) -> None:
    environ = {"VIDEOQA_REDIS_URL": settings.redis_url, "VIDEOQA_PREFIX": settings.prefix}
    with Client.from_environment(environ | {"VIDEOQA_TENANT": "a"}) as client:
        assert client.submit(ASKED).tenant == "a"
    with Client(settings=settings, tenant="b") as client:
        assert client.list().jobs == ()


async def _ask(settings: Settings) -> tuple[str | None, int]:
    async with AsyncClient(settings=settings) as client:
        a, b = client.for_tenant("a"), client.for_tenant("b")
        job = await a.submit(ASKED)
        await b.close()
        with pytest.raises(errors.JobNotFound):
            await b.get(job.id)
        with pytest.raises(errors.JobNotFound):
            async for _ in b.events(job.id):
                pass
        return (await a.get(job.id)).tenant, len((await b.list()).jobs)


def test_async_and_in_memory_clients_have_tenants_too(settings: Settings) -> None:
    tenant, others = asyncio.run(_ask(settings))
    assert (tenant, others) == ("a", 0)
    with InMemoryClient(answer="a cat") as client:
        job = client.for_tenant("a").submit(ASKED)
        assert client.for_tenant("a").result(job.id).answers[0].text == "a cat"
        with pytest.raises(errors.JobNotFound):
            client.for_tenant("b").get(job.id)


def test_a_client_made_for_each_call_warns_of_an_unreadable_record_once(
    operator: Client, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    job = operator.for_tenant("a").submit(ASKED)
    redis_client.hset(operator._backend.ledger.keys.job(job.id), "request", "{}")
    for _ in range(3):
        assert operator.for_tenant("a").get_many([job.id]) == [None]
    assert [job.id in record.getMessage() for record in caplog.records] == [True]
