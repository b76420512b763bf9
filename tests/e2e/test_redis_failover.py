"""A demoted primary behind one name: what is open goes on at the new one, clients and worker alike."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from faults.proxies import Wire
from support.processes import wait_until
from support.redis import count_blocked
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.contract import Job
from videoqa_worker.embedded.redis_server import RedisServer

PASSWORD = secrets.token_hex(8)


class Pair:
    """A primary and its replica; `wire` is the name by which clients find the primary."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        login = f"masterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n"
        self.old = stack.enter_context(RedisServer(folder / "1", password=PASSWORD, extra=login))
        follow = f"{login}replicaof 127.0.0.1 {self.old.port}\n"
        self.new = stack.enter_context(RedisServer(folder / "2", password=PASSWORD, extra=follow))
        self.wire = stack.enter_context(Wire(self.old.port, seed=1))
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.wire.port}/0"
        self._old = stack.enter_context(redis.Redis.from_url(self.old.url))
        self._new = stack.enter_context(redis.Redis.from_url(self.new.url))
        wait_until(lambda: self._is_in_sync(self._new))

    def _is_in_sync(self, replica: redis.Redis) -> bool:
        info = replica.info("replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")

    def demote(self) -> None:
        """Makes the replica the primary; the name still leads to the old one."""
        self._old.execute_command("FAILOVER")
        # It calls itself a replica before the other has agreed, and takes that back if the other is gone by then.
        wait_until(lambda: self._is_in_sync(self._old))

    def lose_primary(self) -> None:
        """Ends the new primary; the old one refuses to answer what it last heard."""
        self._old.config_set("replica-serve-stale-data", "no")
        self.new.kill()
        wait_until(lambda: self._old.info("replication")["master_link_status"] == "down")

    def is_blocking(self, count: int) -> bool:
        """Returns True if so many connections wait in a blocking read."""
        return count_blocked(self._old) >= count

    def rename(self) -> None:
        """Makes new connections go to the new primary."""
        self.wire.to = self.new.port


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path, stack)


def test_open_clients_and_a_worker_go_on_at_the_new_primary(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "videoqa")
    clip = write_clip(Scene.single("blue", "square", "left"), tmp_path / "clip.mp4").as_uri()
    asked = {"inputs": [clip], "questions": ["What color is it?"], "cache": "off"}
    settings = Settings(redis_url=pair.url)

    async def ask(other: AsyncClient) -> Job:
        job = await other.submit(**asked)
        return await other.wait(job.id, timeout_s=60)

    async def follow_over_the_failover(client: Client) -> None:
        async with AsyncClient(settings=settings) as other:
            assert (await ask(other)).state == "succeeded"
            assert client.wait(client.submit(**asked).id, timeout_s=60).state == "succeeded"
            client.submit_many([asked])
            client.pause()
            waiting = await other.submit(**asked)
            waiter = asyncio.create_task(other.wait(waiting.id, timeout_s=60))
            await asyncio.to_thread(wait_until, lambda: pair.is_blocking(2))  # the worker too
            pair.demote()
            with pytest.raises(errors.RedisUnavailable, match="is a replica"):
                client.resume()
            pair.rename()
            caplog.clear()
            client.resume()
            assert (await waiter).state == "succeeded"
            (many,) = client.submit_many([asked])
            assert client.wait(many.id, timeout_s=60).state == "succeeded"
            assert client.wait(client.submit(**asked).id, timeout_s=60).state == "succeeded"
            assert (await ask(other)).state == "succeeded"

    with (
        WorkerProcess(settings, tmp_path / "worker") as worker,
        Client(settings=settings) as client,
    ):
        worker.wait_ready(client)
        asyncio.run(follow_over_the_failover(client))
        assert worker.running()
        assert "a round of the reaper failed" not in worker.log_tail(500)
        assert "Celery gave up" not in worker.log_tail(500)
    assert "find it late" not in caplog.text, "the producer's bells go to the new primary as well"


def test_all_connections_of_a_pool_leave_a_demoted_primary(pair: Pair) -> None:
    """A read would stay at the old one for ever: a replica answers it, with what it last heard."""
    with Client(pair.url) as client:
        pool = client._backend.redis.connection_pool
        idle = [pool.get_connection() for _ in range(3)]
        for connection in idle:
            pool.release(connection)
        pair.demote()
        pair.rename()
        client.pause()
        for connection in idle:
            connection.connect()
            connection.send_command("ROLE")
            assert connection.read_response()[0] == "master"


def test_a_replica_without_its_primary_is_told_as_such(pair: Pair) -> None:
    pair.demote()
    pair.lose_primary()
    with (
        Client(pair.url) as client,
        pytest.raises(errors.RedisUnavailable, match="lost its primary"),
    ):
        client.queues()
