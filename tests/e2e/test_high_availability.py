"""High availability on one machine: three Sentinels, a primary with a replica, TLS, RabbitMQ and one worker.

All servers are real, speak TLS of their own, and ask clients for a certificate. The tests' Valkey is built without TLS,
so the primary, its replica and the Sentinels are Debian's Redis. One thing is a stand-in: the test starts the primary
that it killed again, as a replica, which a supervisor would do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from support.cli import call_command, clean_environment
from support.processes import wait_until
from support.rabbitmq import MISSING, RabbitServer, find_rabbitmq
from support.redis import count_blocked
from support.scenes import Scene, write_clip
from support.sentinels import Replicated
from support.stack import QUICK, WorkerProcess
from support.tls import NO_TLS, Certificates, find_tls_server

from videoqa import Client, Settings, errors

TLS_SERVER = find_tls_server()
pytestmark = [
    pytest.mark.skipif(find_rabbitmq() is None, reason=MISSING),
    pytest.mark.skipif(TLS_SERVER is None, reason=NO_TLS),
]
SCENES = [("red", "circle", "right"), ("green", "triangle", "down"), ("blue", "square", "left")]
BATCH = 24


class Fleet:
    """The servers and one worker."""

    def __init__(self, folder: Path, replicated: Replicated, rabbit: RabbitServer) -> None:
        self.replicated, self.rabbit = replicated, rabbit
        self.settings = Settings(
            redis_url=replicated.url, broker_url=rabbit.tls_url, prefix="ha", wait_replicas=1
        )
        self.clips = [
            write_clip(Scene.single(*words), folder / f"{words[0]}.mp4", duration_s=1.0)
            for words in SCENES
        ]
        self._environ = {
            "VIDEOQA_BROKER_URL": rabbit.tls_url,
            "VIDEOQA_WAIT_REPLICAS": "1",
        }
        self.worker = WorkerProcess(self.settings, folder / "worker", **self._environ)
        self._output = (folder / "worker" / "results").as_uri() + "/{job_id}.json"

    def make_request(self, number: int) -> dict[str, Any]:
        return {
            "inputs": [self.clips[number % len(SCENES)].as_uri()],
            "questions": ["What color is it?"],
            "idempotency_key": f"job-{number}",
            "cache": "off",
        }

    def list_failed_checks(self) -> list[str]:
        """Returns the lines of `videoqa doctor` that name something broken; its status agrees with them."""
        environ = QUICK | self._environ | {"VIDEOQA_OUTPUT": self._output}
        urls = {"VIDEOQA_REDIS_URL": self.settings.redis_url, "VIDEOQA_PREFIX": "ha"}
        done = call_command("doctor", environment=clean_environment(**environ, **urls))
        assert done.returncode == int("FAIL" in done.stdout)
        return [line for line in done.stdout.splitlines() if "FAIL" in line]

    def wait_checks(self, *expected: str) -> None:
        """Waits until `videoqa doctor` finds what is expected and nothing else."""
        found: list[str] = []

        def is_so() -> bool:
            found[:] = self.list_failed_checks()
            return len(found) == len(expected) and all(map(str.__contains__, found, expected))

        try:
            wait_until(is_so)
        except AssertionError as error:
            raise AssertionError(f"doctor says {found}, expected {expected}") from error


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    certificates = Certificates(tmp_path / "certificates")
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(RabbitServer, tmp_path / "rabbitmq", certificates=certificates)
        with (
            Replicated(
                tmp_path / "redis",
                sentinels=3,
                sentinel_password="of-the-sentinels",
                certificates=certificates,
                environ={"VIDEOQA_REDIS_SERVER": str(TLS_SERVER)},
            ) as replicated,
            starting.result() as rabbit,
        ):
            found = Fleet(tmp_path, replicated, rabbit)
            with found.worker:
                yield found


def submit(client: Client, request: dict[str, Any]) -> str:
    """Submits as a careful client: again with the same key until a replica has it."""

    def try_it() -> str | None:
        try:
            return client.submit(request).id
        except errors.RedisUnavailable:
            return None

    job_id = wait_until(try_it)
    assert job_id
    return job_id


def check_answers(client: Client, ids: Sequence[str]) -> None:
    for number, job_id in enumerate(ids):
        job = client.wait(job_id, timeout_s=60)
        assert (job.state, job.failure) == ("succeeded", None)
        assert client.result(job_id).answers[0].text.endswith(SCENES[number % len(SCENES)][0])


def test_no_job_is_lost_when_the_primary_is_killed_and_the_broker_restarted(fleet: Fleet) -> None:
    replicated, ids = fleet.replicated, list[str]()
    with Client(settings=fleet.settings) as client, ThreadPoolExecutor() as pool:

        def submit_more(count: int = BATCH) -> None:
            begun = len(ids)
            ids.extend(submit(client, fleet.make_request(begun + n)) for n in range(count))

        def follow(job_id: str) -> str:
            return "".join(piece.text for piece in client.stream(job_id, timeout_s=60))

        fleet.worker.wait_ready(client)
        fleet.wait_checks()
        submit_more(len(SCENES))
        check_answers(client, ids)
        old = replicated.find_primary()
        assert old is not None
        with redis.Redis(port=old.port) as plain, pytest.raises(redis.exceptions.ConnectionError):
            plain.ping()  # it takes nothing without TLS

        # The primary dies beside jobs that wait and run, and a reader of a stream that has not begun.
        submit_more()
        fleet.worker.signal(signal.SIGSTOP)
        request = fleet.make_request(0) | {"stream": True, "idempotency_key": "streamed"}
        streamed = submit(client, request)
        reading = pool.submit(follow, streamed)
        with replicated.connect(old) as looking:
            wait_until(lambda: count_blocked(looking) >= 1)
        old.kill()
        fleet.worker.signal(signal.SIGCONT)
        submitting = pool.submit(submit_more)
        new = wait_until(lambda: replicated.find_primary(besides=old))
        wait_until(lambda: replicated.is_named_by_all(new))
        fleet.wait_checks("primary, 0 replicas in step, VIDEOQA_WAIT_REPLICAS=1")
        with pytest.raises(errors.NotReplicated):
            client.submit(fleet.make_request(1) | {"idempotency_key": "alone"})
        replicated.restart(old, follow=new)
        submitting.result()
        assert reading.result().endswith("red")
        assert client.get(streamed).state == "succeeded"
        check_answers(client, ids)

        # The broker dies, and comes back with its queues.
        restarting = pool.submit(fleet.rabbit.restart)
        submit_more()
        restarting.result()
        submit_more()
        check_answers(client, ids)

        wait_until(replicated.is_whole)
        fleet.wait_checks()
        ended = {job.id for job in client.list(state="succeeded", limit=2 * len(ids)).jobs}
        assert ended >= {streamed, *ids}
        assert len(ids) == len(set(ids)) == len(SCENES) + 4 * BATCH
        assert fleet.worker.running()
