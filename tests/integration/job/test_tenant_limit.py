"""A tenant runs no more jobs at once than its limit; what it has beyond that waits and takes no slot."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
import redis
from support.attempts import Model, Recorded, make_attempts, submit
from support.worker import finish

from videoqa import Client
from videoqa.contract import WorkerInfo
from videoqa.jobs import Claim, ClaimResult, Ledger
from videoqa.settings import Settings
from videoqa.storage import ObjectStore
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.attempts import Attempts
from videoqa_worker.settings import WorkerSettings


def claim(
    ledger: Ledger, queue: str, token: str, most: int | None = 2, *, heard: str = ""
) -> ClaimResult:
    result = ledger.claim(
        [queue], heard=heard, worker="w", lease_s=30, token=token, tenant_running=most
    )
    assert result.claim or result.reason
    return result


def begin(ledger: Ledger, job: Recorded, token: str, most: int | None = 2) -> Claim | None:
    """Hears the job's bell, and claims the job whose turn it is."""
    return claim(ledger, job.queue, token, most, heard=job.queue).claim


def claim_elsewhere(ledger: Ledger, token: str, most: int = 2) -> list[str]:
    """Claims from a queue in which nothing waits, as any worker does; returns the queues to ring."""
    result = claim(ledger, f"{ledger.keys.prefix}.elsewhere.bulk", token, most)
    assert result.claim is None
    return list(result.ring)


def test_a_job_beyond_the_limit_keeps_its_place_and_others_go_on(ledger: Ledger) -> None:
    jobs = [submit(ledger, tenant="a") for _ in range(4)]
    other, none = submit(ledger, tenant="b"), submit(ledger)
    claims = [begin(ledger, job, f"t{n}") for n, job in enumerate([*jobs, other, none])]
    # The claims go on to the jobs of tenants that may begin more.
    may_begin = {jobs[0].job_id, jobs[1].job_id, other.job_id, none.job_id}
    assert {one.job_id for one in claims[:4] if one} == may_begin
    assert claims[4:] == [None, None]
    ended = {one.job_id: one for one in claims if one}
    finish(ledger, ended[other.job_id], q1="yes")
    assert claim_elsewhere(ledger, "e1") == []
    finish(ledger, ended[jobs[0].job_id], q1="yes")
    assert claim_elsewhere(ledger, "e2") == [jobs[2].queue]
    begun = begin(ledger, jobs[2], "later")
    assert begun is not None
    assert begun.job_id == jobs[2].job_id
    assert claim_elsewhere(ledger, "e3") == []


def test_jobs_without_a_tenant_are_one_tenant(ledger: Ledger) -> None:
    claims = [begin(ledger, submit(ledger), f"t{n}", most=1) for n in range(3)]
    assert [one is not None for one in claims] == [True, False, False]


def test_the_limit_holds_over_all_queues(ledger: Ledger) -> None:
    jobs = [
        submit(ledger, tenant="a"),
        submit(ledger, tenant="a", priority="bulk"),
        submit(ledger, tenant="a", model="m"),
    ]
    claims = [begin(ledger, job, f"t{n}", most=1) for n, job in enumerate(jobs)]
    assert [one is not None for one in claims] == [True, False, False]
    assert claims[0] is not None
    finish(ledger, claims[0], q1="yes")
    rung = claim_elsewhere(ledger, "e", most=1)
    assert set(rung) == {jobs[1].queue, jobs[2].queue}
    begun = [
        claim(ledger, queue, f"u{n}", most=1, heard=queue).claim for n, queue in enumerate(rung)
    ]
    assert [one is not None for one in begun] == [True, False]


def test_nobody_rings_for_jobs_that_may_not_begin(ledger: Ledger) -> None:
    for n in range(5):
        begin(ledger, submit(ledger, tenant="a"), f"t{n}")
    for _ in range(3):
        found = ledger.reap(grace_s=0, tenant_running=2)
        assert (found.ring, found.doubtful) == ([], [])


def test_a_bell_that_is_lost_when_a_job_ends_is_rung_again(ledger: Ledger) -> None:
    jobs = [submit(ledger, tenant="a") for _ in range(5)]
    claims = [begin(ledger, job, f"t{n}") for n, job in enumerate(jobs)]
    assert claims[1] is not None
    finish(ledger, claims[1], q1="yes")  # and its worker dies before it claims again
    queue = jobs[0].queue
    assert ledger.reap(grace_s=60, tenant_running=2).ring == [queue]
    found = ledger.reap(grace_s=0, tenant_running=2)  # and that bell is lost
    assert (found.ring, found.doubtful) == ([], [queue])
    assert ledger.ring_again([queue]) == [queue]
    begun = begin(ledger, jobs[2], "later")
    assert begun is not None
    assert begun.job_id == jobs[2].job_id


def test_jobs_of_a_worker_that_died_count_no_longer(ledger: Ledger) -> None:
    jobs = [submit(ledger, tenant="a", max_attempts=1) for _ in range(5)]
    queue = jobs[0].queue
    for n in range(5):
        ledger.claim([queue], heard=queue, worker="w", lease_s=0, token=f"t{n}", tenant_running=2)
    assert ledger.reap(grace_s=60, tenant_running=2).ring == [queue]
    assert [ledger.get(job.job_id).state for job in jobs] == ["failed"] * 2 + ["queued"] * 3
    first = claim(ledger, queue, "u1", heard=queue)
    assert first.claim is not None
    assert (first.claim.job_id, first.ring) == (jobs[2].job_id, [queue])
    second = claim(ledger, queue, "u2", heard=queue)
    assert second.claim is not None
    assert second.claim.job_id == jobs[3].job_id
    assert claim(ledger, queue, "u3", heard=queue).claim is None


def test_a_running_job_whose_record_was_deleted_counts_no_longer(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    jobs = [submit(ledger, tenant="a") for _ in range(3)]
    first = begin(ledger, jobs[0], "1", most=1)
    assert first is not None
    redis_client.delete(ledger.keys.job(first.job_id))
    assert begin(ledger, jobs[1], "2", most=1) is None
    redis_client.zadd(ledger.keys.leases, {first.job_id: 0})
    ledger.reap(grace_s=60, tenant_running=1)
    assert begin(ledger, jobs[2], "3", most=1) is not None


def test_in_a_race_no_tenant_exceeds_its_limit_and_no_job_is_lost(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    most, tenants, jobs = 2, ["a", "b", None], 120
    bells: SimpleQueue[str] = SimpleQueue()
    for n in range(jobs):
        made = submit(ledger, tenant=tenants[n % 3])
        if made.ring:
            bells.put(made.ring)
    queue = made.queue
    lock, running, done, broken = threading.Lock(), Counter[str | None](), [0], [0]

    def answer(claimed: Claim) -> None:
        tenant = claimed.request.tenant
        with lock:
            running[tenant] += 1
            broken[0] += running[tenant] > most
        time.sleep(0.001)
        with lock:
            running[tenant] -= 1
        finish(ledger, claimed, q1="yes")
        with lock:
            done[0] += 1

    def work(name: str) -> None:
        for n in range(1000):
            try:
                heard = bells.get(timeout=0.5)
            except Empty:
                return
            for again in range(1000):
                result = ledger.claim(
                    [queue], heard="" if again else heard, worker=name, lease_s=30,
                    token=f"{name}.{n}.{again}", tenant_running=most,
                )  # fmt: skip
                for rung in result.ring:
                    bells.put(rung)
                if result.claim is None:
                    break
                answer(result.claim)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (done[0], broken[0]) == (jobs, 0)
    kinds = {str(key).split(":")[1] for key in redis_client.keys(f"{ledger.keys.prefix}:*")}  # type: ignore[union-attr]
    assert not kinds & {"waiting", "line", "turns", "held", "holding", "wake", "running", "share"}


@pytest.fixture
def limited(settings: Settings, ledger: Ledger, tmp_path: Path, model: Model) -> Attempts:
    own = WorkerSettings(
        redis_url=settings.redis_url,
        prefix=settings.prefix,
        output=(tmp_path / "results").as_uri() + "/{job_id}.json",
        tenant_running=1,
    )
    cache = AnswerCache(ObjectStore(), model="demo", revision="sha256:demo", ttl_s=0)
    return make_attempts(own, ledger, model, ObjectStore(file_roots=(tmp_path,)), cache)


def test_a_job_that_waits_for_its_tenant_holds_no_slot(
    ledger: Ledger, client: Client, model: Model, limited: Attempts
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer_slowly() -> None:
        begun.set()
        go_on.wait(30)

    model.meanwhile = answer_slowly
    first, second = submit(ledger, tenant="a"), submit(ledger, tenant="a")
    thread = threading.Thread(target=limited.process, args=(first.queue,))
    thread.start()
    assert begun.wait(30)
    other = submit(ledger, tenant="b")
    limited.process(second.queue)
    assert client.get(second.job_id).state == "queued"
    assert client.get(other.job_id).state == "succeeded", "another tenant's job was claimed"
    assert not limited.process(other.queue), "the slot is free again, at once"
    assert client.get(second.job_id).state == "queued"
    go_on.set()
    thread.join(30)
    limited.process("")
    assert client.get(second.job_id).state == "succeeded"


def test_a_job_says_that_it_waits_for_its_tenant(ledger: Ledger, client: Client) -> None:
    first, second = (submit(ledger, tenant="a") for _ in range(2))
    now = datetime.now(UTC)
    ledger.announce(
        WorkerInfo(
            id="w", model="demo", queues=(first.queue,), slots=2, running=0, ready=True,
            tenant_running=1, started_at=now, seen_at=now,
        )
    )  # fmt: skip
    assert client.get(second.job_id).waiting_for == "a free worker"
    assert begin(ledger, first, "1", most=1)
    said = client.get(second.job_id).waiting_for
    assert said == "a running job of its tenant to end; at most 1 run at once"
