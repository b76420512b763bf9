"""The queues of a fleet: what is said of them costs the same for a thousand workers, and is right without one."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
import redis
from support.cli import Run

from videoqa import Client
from videoqa.contract import Failure, QueueInfo, WorkerInfo
from videoqa.jobs import Claim, Ledger, queue_name
from videoqa.settings import Settings

REQUEST = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"], "model": "org/m"}


@pytest.fixture
def queue(settings: Settings) -> str:
    return queue_name(settings.prefix, "org/m", "interactive")


def describe(queue: str, name: str = "w", *, ready: bool = True, slots: int = 16) -> WorkerInfo:
    now = datetime.now(UTC)
    return WorkerInfo(
        id=name, model="org/m", queues=(queue, queue.replace("org%2Fm", "default")), slots=slots,
        running=0, ready=ready, started_at=now, seen_at=now, output="s3://results/{date}/{job_id}.json",
    )  # fmt: skip


def claim(ledger: Ledger, queue: str, *, token: str = "t", lease_s: float = 30) -> Claim:
    found = ledger.claim([queue], worker="w", lease_s=lease_s, token=token).claim
    assert found is not None
    return found


def read_queue(client: Client) -> QueueInfo:
    (found,) = (found for found in client.queues() if found.model == "org/m")
    return found


def count_bytes(raw: redis.Redis) -> int:
    return int(raw.info("stats")["total_net_output_bytes"])


def test_a_get_and_a_submit_read_nothing_of_each_worker(
    client: Client, ledger: Ledger, redis_client: redis.Redis, queue: str
) -> None:
    job = client.submit(REQUEST)

    def measure() -> list[int]:
        found = []
        for call in (lambda: client.get(job.id), lambda: client.submit(REQUEST)):
            call()  # connected, and the scripts are known
            before = count_bytes(redis_client)
            call()
            found.append(count_bytes(redis_client) - before)
        return found

    ledger.announce(describe(queue))
    of_one = measure()
    for n in range(300):
        ledger.announce(describe(queue, f"w{n}"))
    for one, many in zip(of_one, measure(), strict=True):
        assert many < 1.5 * one, "INFO's own reply is most of it"
    assert client.get(job.id).waiting_for == "a free worker"


def test_workers_and_slots_of_a_queue_are_those_of_its_last_words(
    client: Client, ledger: Ledger, redis_client: redis.Redis, queue: str
) -> None:
    def count() -> tuple[int, int]:
        return next(
            ((found.workers, found.slots) for found in client.queues() if found.model), (0, 0)
        )

    ledger.announce(describe(queue, "a", ready=False))
    assert count() == (0, 0)
    ledger.announce(describe(queue, "a"))
    ledger.announce(describe(queue, "b", slots=4))
    assert count() == (2, 20)
    ledger.announce(describe(queue, "b", slots=8))
    assert count() == (2, 24)
    # `a` falls silent: the others' words prune it, and until then nobody counts it.
    keys = ledger.keys
    redis_client.zincrby(keys.ready(queue), -61, "16  a")
    redis_client.zincrby(keys.serving(queue), -61, "a")
    assert count() == (1, 8)
    ledger.announce(describe(queue, "b", slots=8))
    assert redis_client.zrange(keys.ready(queue), 0, -1) == ["8  b"]
    assert redis_client.zrange(keys.serving(queue), 0, -1) == ["b"]
    ledger.leave("b")
    assert redis_client.exists(keys.ready(queue), keys.serving(queue), keys.worker("b")) == 0


def test_a_worker_that_serves_other_queues_now_leaves_the_former_ones(
    client: Client, ledger: Ledger, queue: str
) -> None:
    job = client.submit(REQUEST)
    ledger.announce(describe(queue))
    assert client.get(job.id).waiting_for == "a free worker"
    ledger.announce(describe(f"{queue}.another"))
    assert client.get(job.id).waiting_for == "no running worker serves model org/m"


def test_a_queued_job_is_told_by_one_read_and_one_script(
    client: Client, ledger: Ledger, redis_client: redis.Redis, queue: str
) -> None:
    ledger.announce(describe(queue))
    job = client.submit(REQUEST)
    client.get(job.id)

    def count_calls() -> dict[str, int]:
        found = redis_client.info("commandstats")
        return {
            name: found.get(f"cmdstat_{name}", {"calls": 0})["calls"]
            for name in ("evalsha", "info")
        }

    before, reads = count_calls(), redis_client.info("stats")["total_reads_processed"]
    client.get(job.id)
    after, reads_after = count_calls(), redis_client.info("stats")["total_reads_processed"]
    assert after["evalsha"] - before["evalsha"] == 1
    # Besides the two of the job: INFO, twice, and the reading of the counters itself.
    assert reads_after - reads - (after["info"] - before["info"]) - 1 <= 2


@pytest.fixture
def lost_and_due(
    client: Client, ledger: Ledger, redis_client: redis.Redis, queue: str
) -> tuple[str, str]:
    """A job whose worker is lost, and one whose next attempt is due; no worker is left, nor any reaper."""
    lost, due = client.submit(REQUEST).id, client.submit(REQUEST).id
    claim(ledger, queue, token="1")
    claim(ledger, queue, token="2")
    failure = Failure(code="model_error", message="boom", retryable=True, attempt=1)
    assert ledger.fail(due, "2", failure, delay_s=0) == "retry"
    redis_client.zincrby(ledger.keys.leases, -31, lost)
    return lost, due


def test_without_a_worker_lost_and_due_jobs_are_counted(
    client: Client, ledger: Ledger, redis_client: redis.Redis, lost_and_due: tuple[str, str]
) -> None:
    redis_client.set(ledger.keys.round, time.time() - 5)  # a reaper was heard just now
    found = read_queue(client)
    assert (found.waiting, found.running, found.delayed, found.due) == (0, 1, 1, 1)
    assert (found.workers, found.slots, found.oldest_s) == (0, 0, None)


def test_whoever_asks_for_queues_makes_the_round_that_no_reaper_makes(
    client: Client, redis_client: redis.Redis, queue: str, lost_and_due: tuple[str, str]
) -> None:
    lost, due = lost_and_due
    redis_client.delete(queue)
    found = read_queue(client)
    assert (found.waiting, found.running, found.delayed, found.due) == (2, 0, 0, 0)
    assert found.oldest_s is not None
    assert 0 < found.oldest_s < 60
    assert client.get_states([lost, due]) == ["queued", "queued"]
    assert redis_client.llen(queue) >= 1, "a worker that comes hears a bell"


def test_a_client_that_may_not_reap_counts_all_the_same(
    client: Client, redis_client: redis.Redis, lost_and_due: tuple[str, str], settings: Settings
) -> None:
    address, reader = settings.redis_url.rpartition("@")[2], "reader-of-queues"
    redis_client.execute_command(
        "ACL", "SETUSER", reader, "on", ">secret", "~*", "+@read", "+@connection", "+evalsha", "+eval",
        "+script|load", "+time",
    )  # fmt: skip
    try:
        with Client(f"redis://{reader}:secret@{address}", settings=settings) as reading:
            found = read_queue(reading)
        assert (found.running, found.due) == (1, 1)
    finally:
        redis_client.execute_command("ACL", "DELUSER", reader)


def test_the_command_prints_the_numbers_of_an_autoscaler(
    run: Run, ledger: Ledger, queue: str, lost_and_due: tuple[str, str]
) -> None:
    ledger.announce(describe(queue, slots=4))
    done = run("queue", "stats", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    (row,) = (one for one in rows if one["model"] == "org/m")
    wanted = {"model": "org/m", "waiting": 2, "running": 0, "delayed": 0, "due": 0, "slots": 4}
    assert row.items() >= wanted.items()
    assert row["oldest_s"] > 0
