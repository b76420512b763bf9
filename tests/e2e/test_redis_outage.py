"""Redis away: a clear word in time, and a worker that waits and is back when Redis is."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from support.processes import wait_until
from support.scenes import Scene, write_clip
from support.stack import StartedWorker, WorkerProcess

from videoqa import errors
from videoqa.client import Client
from videoqa.settings import Settings
from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer


def test_a_worker_waits_for_redis_and_recovers_when_it_is_killed(tmp_path: Path) -> None:
    clip = write_clip(Scene.single("blue", "square", "left"), tmp_path / "clip.mp4")
    port, password = free_port(), secrets.token_hex(8)
    settings = Settings(redis_url=f"redis://:{password}@127.0.0.1:{port}/0")

    def start_redis() -> RedisServer:
        return RedisServer(tmp_path / "redis", port=port, password=password)

    with (
        StartedWorker(settings, tmp_path / "worker") as worker,
        Client(settings=settings) as client,
    ):
        said = f"Redis at 127.0.0.1:{port} does not answer"
        wait_until(lambda: said in worker.log_tail(50), process=worker)
        assert "loading processor" not in worker.log_tail(50), "it is said before the model loads"
        for _ in range(2):
            with start_redis() as redis:
                worker.wait_ready(client)
                job = client.submit(inputs=[clip.as_uri()], questions=["What color is it?"])
                ended = client.wait(job.id, timeout_s=60)
                assert ended.state == "succeeded", ended.failure
                assert client.result(job.id).answers[0].text == "blue"
                redis.kill()
            assert worker.running()
        with start_redis():
            # The records survived both kills. Where the disk is slow, Redis holds its log back for up to 2 s
            # (`appendfsync everysec`), and a job that ended in these runs again.
            assert client.wait(job.id, timeout_s=60).state == "succeeded"


def test_a_worker_stays_up_with_its_model_while_redis_is_full(tmp_path: Path) -> None:
    clip = write_clip(Scene.single("green", "circle", "up"), tmp_path / "clip.mp4")
    with RedisServer(tmp_path / "redis") as server:
        settings = Settings(redis_url=server.url)
        with (
            WorkerProcess(settings, tmp_path / "worker") as worker,
            Client(settings=settings) as client,
            redis.Redis.from_url(server.url) as raw,
        ):
            worker.wait_ready(client)
            worker.signal(signal.SIGSTOP)  # it hears of both jobs when Redis is full
            waiting = [
                client.submit(inputs=[clip.as_uri()], questions=["What color is it?"])
                for _ in range(2)
            ]
            raw.config_set("maxmemory", "1mb")
            with pytest.raises(errors.RedisUnavailable, match="is full"):
                client.submit(inputs=[clip.as_uri()], questions=["What color is it?"])
            worker.signal(signal.SIGCONT)

            def has_met_it() -> bool:
                """The connection broke and cannot be made anew, or it lasted and the jobs could end."""
                gave_up = "Celery gave up on the broker" in worker.log_tail(50)
                return gave_up or all(client.get(job.id).final for job in waiting)

            wait_until(has_met_it, process=worker)
            raw.config_set("maxmemory", "0")
            for job in waiting:
                ended = client.wait(job.id, timeout_s=60)
                assert (ended.state, ended.attempt) == ("succeeded", 1), ended.failure
            assert worker.running()


def test_the_client_and_the_command_say_clearly_and_soon_that_redis_is_away(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with Client(url) as client, pytest.raises(errors.RedisUnavailable, match="correct the URL"):
        client.submit(inputs=["s3://b/k.mp4"], questions=["What?"])
    (tmp_path / "clip.mp4").touch()
    command = [str(Path(sys.executable).parent / "videoqa"), "ask", "clip.mp4", "What?"]
    begun = time.monotonic()
    subprocess.run([command[0], "--help"], capture_output=True, check=True)
    start_s = time.monotonic() - begun
    ended = subprocess.run(
        command,
        env=os.environ | {"VIDEOQA_REDIS_URL": url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        # The promise: under 5 s, interpreter start included, where that takes no longer than a second.
        timeout=max(5, 5 * start_s),
    )
    assert ended.returncode == 4
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "does not answer" in line
    assert "start that server, or correct VIDEOQA_REDIS_URL" in line
