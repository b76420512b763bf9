"""Clients after a fork, on a second event loop, and after `close`: they work, or say why not, and never hang."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from support.processes import wait_until
from support.redis import count_blocked

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.backends.redis_backend import RedisBackend
from videoqa.testing import InMemoryClient
from videoqa_worker.embedded.redis_server import RedisServer

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
HANG_S = 20


def in_child(call: Callable[[], str]) -> str:
    """Returns what `call` returns in a forked child; a child that hangs is ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HANG_S)
        try:
            os.write(write, call().encode())
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "the child failed, or hung"
    return said


def _wait_blocked(redis_client: redis.Redis, count: int) -> None:
    wait_until(lambda: count_blocked(redis_client) >= count)


# -- fork


def test_a_client_works_in_a_forked_child_and_on_in_its_parent(
    client: Client, redis_client: redis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def submit_all() -> str:
        one = client.submit(**ASKED)
        client.submit_many([ASKED, ASKED])
        gc.collect()
        client.close()
        return one.id

    job = client.submit(**ASKED)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, job.id, timeout_s=60)
        _wait_blocked(redis_client, 1)
        of_child = in_child(submit_all)
        client.cancel(job.id)
        assert waiting.result().state == "canceled"
    assert client.get(of_child).state == "queued"
    client.submit(**ASKED)
    bells = redis_client.llen(f"{settings.prefix}.default.interactive")
    assert bells == 5, "each job of both was rung for"
    assert "find it late" not in caplog.text


def test_a_fork_in_the_middle_of_a_submit_leaves_the_child_no_lock_to_wait_for(
    settings: Settings,
) -> None:
    parent, entered, leave = os.getpid(), threading.Event(), threading.Event()

    class Slow(RedisBackend):
        def _make_doorbell(self):  # type: ignore[no-untyped-def]
            if os.getpid() == parent:
                entered.set()
                leave.wait(60)
            return super()._make_doorbell()

    class SlowClient(Client):
        def _make_backend(self) -> Slow:
            return Slow(self.settings)

    with SlowClient(settings=settings) as client, ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(client.submit, **ASKED)
        entered.wait(60)
        try:
            of_child = in_child(lambda: client.submit(**ASKED).id)
        finally:
            leave.set()
        assert client.get(of_child).state == "queued"
        assert submitting.result().state == "queued"


def test_an_async_client_works_in_a_forked_child_and_on_in_its_parent(
    settings: Settings, redis_client: redis.Redis
) -> None:
    client = AsyncClient(settings=settings)

    async def follow() -> str:
        job = await client.submit(**ASKED)
        waiter = asyncio.create_task(client.wait(job.id, timeout_s=60))
        gc.collect()
        await client.cancel(job.id)
        return (await waiter).state

    async def follow_over_a_fork() -> str:
        job = await client.submit(**ASKED)
        waiter = asyncio.create_task(client.wait(job.id, timeout_s=60))
        await asyncio.to_thread(_wait_blocked, redis_client, 1)
        assert await asyncio.to_thread(in_child, lambda: asyncio.run(follow())) == "canceled"
        await client.cancel(job.id)
        state = (await waiter).state
        await client.close()
        return state

    assert asyncio.run(follow_over_a_fork()) == "canceled"


def test_a_tenants_client_works_in_a_forked_child_and_is_closed_with_the_one_it_comes_from(
    client: Client, settings: Settings
) -> None:
    theirs = client.for_tenant("a")
    theirs.submit(**ASKED)
    of_child = in_child(lambda: theirs.submit(**ASKED).id)
    assert theirs.get(of_child).tenant == "a"
    theirs.close()
    assert client.get(of_child).state == "queued"
    client.close()
    for call in (lambda: theirs.submit(**ASKED), lambda: theirs.get(of_child)):
        with pytest.raises(errors.ClientClosed):
            call()

    async def close_first() -> None:
        first = AsyncClient(settings=settings)
        second = first.for_tenant("a")
        await second.submit(**ASKED)
        await first.close()
        for call in (second.submit(**ASKED), second.wait(of_child)):
            with pytest.raises(errors.ClientClosed):
                await call

    asyncio.run(close_first())


def test_an_in_memory_client_keeps_its_jobs_in_a_forked_child() -> None:
    client = InMemoryClient(answer="a cat")
    job = client.submit(**ASKED)
    assert in_child(lambda: client.result(job.id).answers[0].text) == "a cat"


# -- event loops


def test_an_async_client_works_on_one_event_loop_after_another(settings: Settings) -> None:
    client = AsyncClient(settings=settings)

    async def follow(close: bool) -> str:
        job = await client.submit(**ASKED)
        waiter = asyncio.create_task(client.wait(job.id, timeout_s=60, on_event=lambda _: None))
        await asyncio.sleep(0)
        await client.cancel(job.id)
        state = (await waiter).state
        if close:
            await client.close()
        return state

    assert [asyncio.run(follow(close)) for close in (False, False, True)] == ["canceled"] * 3


def test_an_async_client_works_on_two_event_loops_at_once(settings: Settings) -> None:
    client = AsyncClient(settings=settings)

    async def follow(job_id: str) -> str:
        return (await client.wait(job_id, timeout_s=60)).state

    with Client(settings=settings) as other, ThreadPoolExecutor(2) as pool:
        job = other.submit(**ASKED)
        waiting = [pool.submit(asyncio.run, follow(job.id)) for _ in range(2)]
        wait_until(lambda: client._client._backend.reader.waiting == 2)
        other.cancel(job.id)
        assert [each.result() for each in waiting] == ["canceled"] * 2
    asyncio.run(client.close())


# -- close


def test_a_closed_client_says_so(client: Client) -> None:
    job = client.submit(**ASKED)
    client.close()
    client.close()
    calls: list[Callable[[], object]] = [
        lambda: client.submit(**ASKED),
        lambda: client.submit_many([ASKED]),
        lambda: client.get(job.id),
        lambda: client.wait(job.id),
        lambda: client.result(job.id),
        lambda: list(client.events(job.id)),
        client.queues,
        client.ping,
    ]
    for call in calls:
        with pytest.raises(errors.ClientClosed, match="make a new one"):
            call()


def test_a_closed_async_client_says_so_also_to_who_waits(
    settings: Settings, redis_client: redis.Redis
) -> None:
    async def close_while_waiting() -> None:
        client = AsyncClient(settings=settings)
        job = await client.submit(**ASKED)
        waiter = asyncio.create_task(client.wait(job.id, timeout_s=60))
        await asyncio.to_thread(_wait_blocked, redis_client, 1)
        await client.close()
        await client.close()
        for call in (waiter, client.get(job.id), client.wait(job.id), client.ping()):
            with pytest.raises(errors.ClientClosed):
                await call

    asyncio.run(close_while_waiting())


def test_a_thread_that_waits_hears_that_its_client_is_closed(
    client: Client, redis_client: redis.Redis
) -> None:
    job = client.submit(**ASKED)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, job.id, timeout_s=60)
        _wait_blocked(redis_client, 1)
        client.close()
        with pytest.raises(errors.ClientClosed):
            waiting.result()


def test_close_leaves_no_connection_to_redis_or_the_broker(tmp_path: Path) -> None:
    async def submit() -> None:
        async with AsyncClient(server.url) as client:
            job = await client.submit(**ASKED)
            await client.cancel(job.id)
            await client.wait(job.id, timeout_s=60)

    with RedisServer(tmp_path) as server, redis.Redis.from_url(server.url) as only:
        with Client(server.url) as client, Client(server.url) as other:
            client.submit(**ASKED)
            client.close()
            other.submit_many([ASKED, ASKED])
        asyncio.run(submit())
        wait_until(lambda: len(only.client_list()) == 1)


# -- end of the program


def test_a_program_that_ends_with_an_open_client_prints_nothing(settings: Settings) -> None:
    program = (
        "import asyncio; from videoqa import AsyncClient, Client\n"
        f"client = Client({settings.redis_url!r}); client.ping()\n"
        f"other = AsyncClient({settings.redis_url!r}); asyncio.run(other.ping())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
