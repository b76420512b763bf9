"""Connections of the clients to a real Valkey: how many there may be, and what is said when there are no more."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from support.processes import wait_until
from support.redis import count_blocked

from videoqa import AsyncClient, Client, Settings, errors
from videoqa_worker.embedded.redis_server import RedisServer

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
WAITERS = 150
"""More than redis-py's own limit of 100 connections a pool."""


def _try_to_list(client: Client) -> str:
    try:
        client.queues()
    except errors.RedisUnavailable as error:
        return error.message
    return ""


def test_150_threads_wait_with_one_client(client: Client, redis_client: redis.Redis) -> None:
    job = client.submit(**ASKED)
    with ThreadPoolExecutor(WAITERS) as pool:
        waiting = [pool.submit(client.wait, job.id, timeout_s=60) for _ in range(WAITERS)]
        wait_until(lambda: count_blocked(redis_client) >= WAITERS)
        client.cancel(job.id)
        assert {each.result().state for each in waiting} == {"canceled"}


def test_150_tasks_wait_with_one_client(settings: Settings, redis_client: redis.Redis) -> None:
    async def follow() -> set[str]:
        async with AsyncClient(settings=settings) as client:
            job = await client.submit(**ASKED)
            waiting = [
                asyncio.create_task(client.wait(job.id, timeout_s=60)) for _ in range(WAITERS)
            ]
            await asyncio.to_thread(wait_until, lambda: count_blocked(redis_client) >= WAITERS)
            await client.cancel(job.id)
            return {each.state for each in await asyncio.gather(*waiting)}

    assert asyncio.run(follow()) == {"canceled"}


def test_a_limit_of_the_url_is_told_as_what_it_is(settings: Settings, client: Client) -> None:
    job = client.submit(**ASKED)
    with Client(f"{settings.redis_url}?max_connections=1", settings=settings) as narrow:
        waiter = threading.Thread(target=narrow.wait, args=(job.id,))
        waiter.start()
        # Between two blocking reads the one connection is free for a moment.
        wait_until(lambda: "raise max_connections in" in _try_to_list(narrow))
        client.cancel(job.id)
        waiter.join()


def test_a_limit_of_the_server_is_told_as_what_it_is(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        redis.Redis.from_url(server.url) as only,
        Client(server.url) as client,
    ):
        only.config_set("maxclients", 1)
        with pytest.raises(errors.RedisUnavailable, match="takes no more clients"):
            client.queues()
