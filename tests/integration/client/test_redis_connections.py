"""Connections of the clients to a real Valkey: how many there may be, and what is said when there are no more."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import redis
from support.processes import wait_until

from videoqa import Client, Settings, errors
from videoqa.broker import make_celery, ring
from videoqa_worker.embedded.redis_server import RedisServer

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
CALLERS = 150
"""More than redis-py's own limit of 100 connections a pool."""


def _try_to_list(client: Client) -> str:
    try:
        client.queues()
    except errors.RedisUnavailable as error:
        return error.message
    return ""


def test_150_calls_at_once_with_one_client(client: Client) -> None:
    barrier = threading.Barrier(CALLERS)

    def ask() -> list[object]:
        barrier.wait()
        return list(client.queues())

    with ThreadPoolExecutor(CALLERS) as pool:
        assert [each.result() for each in [pool.submit(ask) for _ in range(CALLERS)]] == [
            []
        ] * CALLERS


def test_a_limit_of_the_url_is_told_as_what_it_is(settings: Settings, client: Client) -> None:
    told: list[str] = []
    with Client(f"{settings.redis_url}?max_connections=1", settings=settings) as narrow:

        def ask() -> None:
            while not told:
                if message := _try_to_list(narrow):
                    told.append(message)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: told)
        for thread in threads:
            thread.join()
        assert "raise max_connections in" in told[0]
        # Waiting has a connection of its own.
        job = client.submit(**ASKED)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(narrow.wait, job.id, timeout_s=60)
            wait_until(lambda: narrow._backend.reader.waiting == 1)
            assert narrow.get(job.id).state == "queued"
            client.cancel(job.id)
            assert waiting.result().state == "canceled"


def test_a_limit_of_the_server_is_told_as_what_it_is(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        redis.Redis.from_url(server.url) as only,
        Client(server.url) as client,
    ):
        only.config_set("maxclients", 1)
        with pytest.raises(errors.RedisUnavailable, match="takes no more clients"):
            client.queues()


def test_a_consumer_whose_idle_connection_died_connects_again(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """redis-py connects anew by itself where a check of its health fails; kombu would poll the socket of before."""
    queue = f"{settings.prefix}.default.bulk"
    with closing(make_celery(settings)) as app, app.connection_for_read() as connection:
        ring(app, queue)
        heard: list[str] = []
        with connection.SimpleQueue(queue) as simple:
            simple.get(timeout=60).ack()
            channel = simple.channel
            waiting = channel.client.connection
            name = waiting._sock.getsockname()
            waiting.next_health_check = 0  # as some seconds later
            redis_client.client_kill(f"{name[0]}:{name[1]}")
            ring(app, queue)
            with pytest.raises(connection.connection_errors, match="broke"):
                heard.append(simple.get(timeout=60).payload)
        with app.connection_for_read() as again, again.SimpleQueue(queue) as simple:
            simple.get(timeout=60).ack()
    assert heard == []
