"""Many waits of one process over few connections, and waits that must not harm each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from support.processes import wait_until

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.contract import Event
from videoqa.jobs import Ledger, Progress
from videoqa.jobs.shared_reader import SharedReader

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
TASKS, THREADS, JOBS = 5000, 500, 500


def count_connections(redis_client: redis.Redis, name: str) -> int:
    return sum(each["name"] == name for each in redis_client.client_list())


def cancel_all(redis_client: redis.Redis, settings: Settings, ids: list[str]) -> None:
    ledger = Ledger(redis_client, url=settings.redis_url, prefix=settings.prefix)
    for job_id in ids:
        ledger.cancel(job_id)


@pytest.fixture
def named(settings: Settings) -> tuple[Settings, str]:
    """Settings of a client whose connections have a name."""
    name = f"waiters-{settings.prefix}"
    return settings.model_copy(
        update={"redis_url": f"{settings.redis_url}?client_name={name}"}
    ), name


def test_5000_tasks_wait_over_two_connections(
    named: tuple[Settings, str], settings: Settings, client: Client, redis_client: redis.Redis
) -> None:
    ids = [job.id for job in client.submit_many([ASKED] * JOBS)]

    async def follow() -> Counter[str]:
        async with AsyncClient(settings=named[0]) as waiter:
            waits = [
                asyncio.create_task(waiter.wait(ids[n % JOBS], timeout_s=60)) for n in range(TASKS)
            ]
            reader = waiter._client._reader
            await asyncio.to_thread(wait_until, lambda: reader.waiting == TASKS)
            assert count_connections(redis_client, named[1]) <= 2
            await asyncio.to_thread(cancel_all, redis_client, settings, ids)
            states = Counter([(await each).state for each in waits])
            assert count_connections(redis_client, named[1]) <= 2
            return states

    assert asyncio.run(follow()) == {"canceled": TASKS}


def test_500_threads_wait_over_two_connections_beside_a_submit(
    named: tuple[Settings, str], settings: Settings, client: Client, redis_client: redis.Redis
) -> None:
    ids = [job.id for job in client.submit_many([ASKED] * THREADS)]
    with Client(settings=named[0]) as waiter, ThreadPoolExecutor(THREADS) as pool:
        waits = [pool.submit(waiter.wait, job_id, timeout_s=60) for job_id in ids]
        wait_until(lambda: waiter._reader.waiting == THREADS)
        assert count_connections(redis_client, named[1]) <= 2
        assert waiter.submit(**ASKED).state == "queued"
        cancel_all(redis_client, settings, ids)
        assert {each.result().state for each in waits} == {"canceled"}
        assert count_connections(redis_client, named[1]) <= 4


def test_a_wait_that_joins_a_blocking_read_hears_what_comes_next(
    client: Client, redis_client: redis.Redis
) -> None:
    first, second = client.submit_many([ASKED, ASKED])
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.wait, first.id, timeout_s=60)
        wait_until(lambda: client._reader.waiting == 1)
        joining = pool.submit(client.wait, second.id, timeout_s=60)
        wait_until(lambda: len(client._reader._streams) == 2)
        client.cancel(second.id)
        assert joining.result().state == "canceled"
        assert not waiting.done()
        client.cancel(first.id)
        assert waiting.result().state == "canceled"


def run_with_noise(
    client: Client, spoil: Callable[[str], object], *, loser: type[Exception] | None
) -> None:
    """Waits for two jobs, spoils the stream of one, and expects the other wait to be as before."""
    good, bad = client.submit_many([ASKED, ASKED])
    with ThreadPoolExecutor(2) as pool:
        waits = {job.id: pool.submit(client.wait, job.id, timeout_s=60) for job in (good, bad)}
        wait_until(lambda: len(client._reader._streams) == 2)
        spoil(client._ledger.keys.events(bad.id))
        if loser is not None:
            with pytest.raises(loser):
                waits[bad.id].result()
        else:
            client.cancel(bad.id)
            assert waits[bad.id].result().state == "canceled"
        client.cancel(good.id)
        assert waits[good.id].result().state == "canceled"


def test_entries_that_are_no_events_harm_no_wait(client: Client, redis_client: redis.Redis) -> None:
    run_with_noise(client, lambda key: redis_client.xadd(key, {"type": "?"}), loser=None)


def test_a_stream_of_another_type_fails_only_its_own_wait(
    client: Client, redis_client: redis.Redis
) -> None:
    run_with_noise(client, lambda key: redis_client.set(key, "x"), loser=errors.ConfigurationError)


def test_a_slow_reader_gets_each_event_once_and_keeps_none_here(
    client: Client, redis_client: redis.Redis, settings: Settings
) -> None:
    ledger = Ledger(redis_client, url=settings.redis_url, prefix=settings.prefix)
    job = client.submit(**ASKED)
    queue = f"{settings.prefix}.default.interactive"
    ledger.claim([queue], worker="w", lease_s=600, token="t")
    events = client.events(job.id, timeout_s=60)
    read: list[Event] = [next(events), next(events)]
    for n in range(450):  # more than one reply holds
        ledger.progress(job.id, "t", Progress("generating", done=n, total=450))
    assert client._reader.waiting == 0
    client.cancel(job.id)
    ledger.reap(grace_s=0)
    for event in events:
        read.append(event)
        if event.done == 449:
            break
    assert [event.done for event in read if event.done is not None] == list(range(450))
    assert len({event.id for event in read}) == len(read)


def test_a_cancelled_wait_leaves_the_reader(settings: Settings, client: Client) -> None:
    job = client.submit(**ASKED)

    async def leave() -> None:
        async with AsyncClient(settings=settings) as waiter:
            reader: SharedReader = waiter._client._reader
            task = asyncio.create_task(waiter.wait(job.id))
            await asyncio.to_thread(wait_until, lambda: reader.waiting == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert reader.waiting == 0
            with pytest.raises(errors.WaitTimeout):
                await waiter.wait(job.id, timeout_s=0.05)

    asyncio.run(leave())
