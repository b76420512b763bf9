"""Found by a review: a caller that waits lives through a restart of Redis; frames leave no threads."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.exceptions import ResponseError
from support.processes import wait_until
from support.redis import count_blocked
from support.scenes import Scene, write_clip

from videoqa import AsyncClient, errors
from videoqa.client import Client
from videoqa.contract import Sampling, parse_request
from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer
from videoqa_worker.frames import sample_frames


def test_whoever_waits_for_a_job_lives_through_a_restart_of_redis(tmp_path: Path) -> None:
    port, password = free_port(), "waiting"
    ended: list[str] = []
    with RedisServer(tmp_path, port=port, password=password) as redis, Client(redis.url) as client:
        job = client.submit(inputs=["s3://b/k.mp4"], questions=["What?"])
        waiter = threading.Thread(
            target=lambda: ended.append(client.wait(job.id, timeout_s=90).state)
        )
        waiter.start()
        redis.stop()
        with RedisServer(tmp_path, port=port, password=password):
            client.cancel(job.id)
            waiter.join(90)
    assert ended == ["canceled"]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_whoever_waits_for_a_job_lives_through_a_failover(
    tmp_path: Path, kind: type[Client | AsyncClient]
) -> None:
    ended: list[str] = []

    def wait(url: str, job_id: str) -> None:
        async def awaited() -> str:
            async with AsyncClient(url) as client:
                return (await client.wait(job_id, timeout_s=90)).state

        if kind is AsyncClient:
            ended.append(asyncio.run(awaited()))
        else:
            with Client(url) as client:
                ended.append(client.wait(job_id, timeout_s=90).state)

    with (
        RedisServer(tmp_path) as server,
        Client(server.url) as client,
        Redis.from_url(server.url) as raw,
    ):
        job = client.submit(inputs=["s3://b/k.mp4"], questions=["What?"])
        waiter = threading.Thread(target=wait, args=(server.url, job.id))
        waiter.start()
        wait_until(lambda: count_blocked(raw))
        raw.replicaof("127.0.0.1", "1")  # another server is the master for a moment
        raw.replicaof("NO", "ONE")
        client.cancel(job.id)
        waiter.join(90)
    assert ended == ["canceled"]


def test_a_redis_that_is_busy_with_a_script_is_unavailable(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        Client(server.url) as client,
        Redis.from_url(server.url) as raw,
        Redis.from_url(server.url, socket_timeout=None) as other,
    ):
        job = client.submit(inputs=["s3://b/k.mp4"], questions=["What?"])
        raw.config_set("busy-reply-threshold", 100)

        def run_for_ever() -> None:
            with suppress(ResponseError):  # it is killed
                other.eval("while true do end", 0)

        def is_busy() -> bool:
            try:
                return not raw.ping()
            except ResponseError as error:
                return "BUSY" in str(error)

        script = threading.Thread(target=run_for_ever)
        script.start()
        wait_until(is_busy)
        with pytest.raises(errors.RedisUnavailable, match="BUSY"):
            client.get(job.id)
        raw.script_kill()
        script.join()
        assert client.get(job.id).state == "queued"


def test_sampling_leaves_no_threads_behind(tmp_path: Path) -> None:
    clip = write_clip(Scene.single("red", "circle", "up"), tmp_path / "clip.mp4")
    process = psutil.Process()
    sampled = sample_frames(clip, Sampling(frames=2))
    before = process.num_threads()
    kept = [sample_frames(clip, Sampling(frames=16)) for _ in range(3)]
    assert len(sampled.frames) + sum(len(one.frames) for one in kept) == 50
    # The scaler of each picture used to keep a thread a core.
    assert process.num_threads() <= before + 8


def test_credentials_have_no_place_in_an_s3_url() -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        parse_request({"inputs": ["s3://user:secret@b/k.mp4"], "questions": ["What?"]})
    assert "credentials" in caught.value.message
    assert "secret" not in caught.value.message
