"""The life of a job on each version of Redis and Valkey that is at hand, by the same calls.

`sh .ci/fetch_redis_versions.sh` puts some into .venv/redis-versions. docs/internals/servers.md has the results.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.processes import wait_until
from support.worker import begin, finish

from videoqa import Client, Settings
from videoqa.cli.doctor import run_checks
from videoqa.contract import Failure
from videoqa.jobs import Ledger, Progress, connect, server_name
from videoqa_worker.embedded.redis_server import RedisServer, find_server

FETCHED = Path(sys.prefix, "redis-versions")
ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"], "tags": ["t"]}


def _find_servers() -> dict[str, str]:
    """Returns the programs of all servers that are at hand, by a name for the test."""
    found = {path.parent.name: str(path) for path in sorted(FETCHED.glob("*/redis-server"))}
    found |= {n: p for n in ("redis-server", "valkey-server") if (p := shutil.which(n))}
    return found | {"default": find_server(os.environ)}


SERVERS = _find_servers()


@pytest.fixture(scope="module", params=SERVERS)
def version(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    environ = {"VIDEOQA_REDIS_SERVER": SERVERS[request.param]}
    with RedisServer(tmp_path_factory.mktemp("redis"), environ=environ) as server:
        yield Settings(redis_url=server.url, prefix="versions")


@pytest.fixture
def at(version: Settings) -> Iterator[redis.Redis]:
    with connect(version) as connected:
        yield connected
        connected.flushall()


def test_a_job_lives_on_each_version_as_on_any_other(version: Settings, at: redis.Redis) -> None:
    print(server_name(at.info("server")))
    ledger = Ledger(at, url=version.redis_url, prefix=version.prefix)
    with Client(settings=version) as client:

        def is_in_line() -> bool:
            ledger.reap(grace_s=60)
            return sum(queue.waiting for queue in client.queues()) == 1

        first = client.submit(ASKED | {"idempotency_key": "one"})
        assert client.submit(ASKED | {"idempotency_key": "one"}).id == first.id
        others = client.submit_many([ASKED] * 2)
        claim = begin(ledger)
        assert claim.job_id == first.id
        held = [(first.id, claim.token), (first.id, "another")]
        assert ledger.renew(held, lease_s=30) == ["ok", "lost"]
        assert ledger.progress(first.id, claim.token, Progress("sampling", done=1, total=2)) == "ok"
        broken = Failure(code="model_error", message="boom", retryable=True, attempt=1)
        assert ledger.fail(first.id, claim.token, broken, delay_s=0) == "retry"
        finish(ledger, begin(ledger), q1="a dog")
        assert client.cancel(others[1].id).state == "canceled"
        wait_until(is_in_line)
        assert begin(ledger, "lost", lease_s=0.01).attempt == 2
        wait_until(is_in_line)
        claim = begin(ledger, "last")
        assert (claim.job_id, claim.attempt) == (first.id, 3)
        finish(ledger, claim, q1="a cat")

        assert client.result(first.id).answers[0].text == "a cat"
        events = list(client.events(first.id))
        assert (events[0].state, events[-1].state) == ("queued", "succeeded")
        assert {job.id for job in client.list(state="succeeded").jobs} == {first.id, others[0].id}
        assert len(client.list(tag="t").jobs) == 3
        assert sum(queue.waiting for queue in client.queues()) == 0
    assert {each.name for each in run_checks(version) if not each.ok} == {"workers", "model"}
