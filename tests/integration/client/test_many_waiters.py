"""Many waits of one process over few connections, and waits that must not harm each other."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest
import redis
from support.processes import wait_until

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.contract import Event
from videoqa.jobs import Ledger, Progress, read_lane
from videoqa.jobs.blocking_read import StreamRead, _pack_command
from videoqa.jobs.settling import settle_all
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


def test_5000_tasks_wait_over_three_connections(
    named: tuple[Settings, str], settings: Settings, client: Client, redis_client: redis.Redis
) -> None:
    ids = [job.id for job in client.submit_many([ASKED] * JOBS)]

    async def follow() -> Counter[str]:
        async with AsyncClient(settings=named[0]) as waiter:
            waits = [
                asyncio.create_task(waiter.wait(ids[n % JOBS], timeout_s=60)) for n in range(TASKS)
            ]
            reader = waiter._client._backend.reader
            await asyncio.to_thread(wait_until, lambda: reader.waiting == TASKS)
            assert count_connections(redis_client, named[1]) <= 3
            await asyncio.to_thread(cancel_all, redis_client, settings, ids)
            states = Counter([(await each).state for each in waits])
            assert count_connections(redis_client, named[1]) <= 3
            return states

    assert asyncio.run(follow()) == {"canceled": TASKS}


def test_500_threads_wait_over_three_connections_and_submit_over_a_fourth(
    named: tuple[Settings, str], settings: Settings, client: Client, redis_client: redis.Redis
) -> None:
    ids = [job.id for job in client.submit_many([ASKED] * THREADS)]
    with Client(settings=named[0]) as waiter, ThreadPoolExecutor(THREADS) as pool:
        waits = [pool.submit(waiter.wait, job_id, timeout_s=60) for job_id in ids]
        wait_until(lambda: waiter._backend.reader.waiting == THREADS)
        assert count_connections(redis_client, named[1]) <= 3
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
        wait_until(lambda: client._backend.reader.waiting == 1)
        joining = pool.submit(client.wait, second.id, timeout_s=60)
        wait_until(lambda: len(client._backend.reader._lane.streams) == 2)
        client.cancel(second.id)
        assert joining.result().state == "canceled"
        assert not waiting.done()
        client.cancel(first.id)
        assert waiting.result().state == "canceled"


def test_reads_that_wait_for_long_leave_the_lane_of_new_ones(
    named: tuple[Settings, str],
    settings: Settings,
    client: Client,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_lane, "PATIENT_S", 0.1)
    monkeypatch.setattr(read_lane, "IDLE_S", 0.2)
    ids = [job.id for job in client.submit_many([ASKED] * (read_lane.MANY_STREAMS + 2))]
    joining = ids.pop()

    async def follow() -> None:
        async with AsyncClient(settings=named[0]) as waiter:
            reader = waiter._client._backend.reader
            waits = {each: asyncio.create_task(waiter.wait(each, timeout_s=60)) for each in ids}
            await asyncio.to_thread(
                wait_until, lambda: len(reader._patient_lane.streams) == len(ids)
            )
            waits[joining] = asyncio.create_task(waiter.wait(joining, timeout_s=60))
            own = client._backend.ledger.keys.events(joining)
            await asyncio.to_thread(wait_until, lambda: list(reader._lane.streams) == [own])
            for job_id in (ids[0], joining):
                await asyncio.to_thread(cancel_all, redis_client, settings, [job_id])
                assert (await waits[job_id]).state == "canceled"
            assert reader.waiting == len(ids) - 1
            assert count_connections(redis_client, named[1]) <= 3
            await asyncio.to_thread(cancel_all, redis_client, settings, ids[1:])
            assert {(await each).state for each in waits.values()} == {"canceled"}

    asyncio.run(follow())


def test_a_waiting_task_is_few_objects_for_the_garbage_collector(
    settings: Settings, client: Client
) -> None:
    ids = [job.id for job in client.submit_many([ASKED] * 220)]

    async def follow() -> float:
        async with AsyncClient(settings=settings) as waiter:
            reader = waiter._client._backend.reader

            async def count(some: list[str]) -> tuple[int, list[asyncio.Task[Any]]]:
                before = reader.waiting
                waits = [asyncio.create_task(waiter.wait(each)) for each in some]
                await asyncio.to_thread(wait_until, lambda: reader.waiting == before + len(some))
                gc.collect()
                return len(gc.get_objects()), waits

            few, waits = await count(ids[:20])
            many, others = await count(ids[20:])
            waits += others
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            return (many - few) / 200

    assert asyncio.run(follow()) < 45  # 64 with a concurrent future, its bridge and wait_for


def test_the_packed_command_is_that_of_redis_py(redis_client: redis.Redis) -> None:
    streams = {"a": "0", "pr\u00e4fix:events:1": "1764490000000-12", "b" * 9000: "$"}
    reads = [StreamRead(key, after) for key, after in streams.items()]
    connection: Any = redis_client.connection_pool.make_connection()
    words = ["XREAD", "COUNT", 200, "BLOCK", 2000, "STREAMS", *streams, *streams.values()]
    packed = b"".join(connection.pack_command(*words))
    assert _pack_command(reads, count=200, block_s=2.0) == packed


def test_a_closed_event_loop_harms_no_other_waiter() -> None:
    loop = asyncio.new_event_loop()
    gone = loop.create_future()
    loop.close()
    thread: Future[str] = Future()

    async def receive() -> str:
        future = asyncio.get_running_loop().create_future()
        settle_all([(gone, "news"), (future, "news"), (thread, "news")])
        return cast("str", await future)

    assert asyncio.run(receive()) == thread.result(timeout=0) == "news"


def run_with_noise(
    client: Client, spoil: Callable[[str], object], *, loser: type[Exception] | None
) -> None:
    """Waits for two jobs, spoils the stream of one, and expects the other wait to be as before."""
    good, bad = client.submit_many([ASKED, ASKED])
    with ThreadPoolExecutor(2) as pool:
        waits = {job.id: pool.submit(client.wait, job.id, timeout_s=60) for job in (good, bad)}
        wait_until(lambda: len(client._backend.reader._lane.streams) == 2)
        spoil(client._backend.ledger.keys.events(bad.id))
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
    assert client._backend.reader.waiting == 0
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
            reader: SharedReader = waiter._client._backend.reader
            task = asyncio.create_task(waiter.wait(job.id))
            await asyncio.to_thread(wait_until, lambda: reader.waiting == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert reader.waiting == 0
            with pytest.raises(errors.WaitTimeout):
                await waiter.wait(job.id, timeout_s=0.05)

    asyncio.run(leave())
