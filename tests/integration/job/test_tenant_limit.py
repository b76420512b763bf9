"""A tenant runs no more jobs at once than its limit; what it has beyond that waits and takes no slot."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
import redis
from support.attempts import Model, make_attempts, submit
from support.worker import finish

from videoqa import Client
from videoqa.contract import WorkerInfo
from videoqa.jobs import Bell, Claim, Ledger
from videoqa.settings import Settings
from videoqa.storage import ObjectStore
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.attempts import Attempts
from videoqa_worker.settings import WorkerSettings


def claim(ledger: Ledger, bell: Bell, token: str, most: int | None = 2) -> Claim | None:
    result = ledger.claim(bell, worker="w", lease_s=30, token=token, tenant_running=most)
    assert result.claim or result.reason
    return result.claim


def test_a_job_beyond_the_limit_keeps_its_place_and_others_go_on(ledger: Ledger) -> None:
    bells = [submit(ledger, tenant="a") for _ in range(4)]
    other, none = submit(ledger, tenant="b"), submit(ledger)
    claims = [claim(ledger, bell, f"t{n}") for n, bell in enumerate([*bells, other, none])]
    # The bells of a tenant that may begin no more lead to the jobs of those that may.
    may_begin = {bells[0].job_id, bells[1].job_id, other.job_id, none.job_id}
    assert {one.job_id for one in claims[:4] if one} == may_begin
    assert claims[4:] == [None, None]
    assert ledger.ring_next(other.job_id, tenant_running=2) == []
    (first,) = [one for one in claims if one and one.job_id == bells[0].job_id]
    finish(ledger, first, q1="yes")
    (rung,) = ledger.ring_next(bells[0].job_id, tenant_running=2)
    assert rung.job_id == bells[2].job_id
    begun = claim(ledger, rung, "later")
    assert begun is not None
    assert begun.job_id == bells[2].job_id
    assert ledger.ring_next(bells[0].job_id, tenant_running=2) == []


def test_jobs_without_a_tenant_are_one_tenant(ledger: Ledger) -> None:
    bells = [submit(ledger) for _ in range(3)]
    claims = [claim(ledger, bell, f"t{n}", most=1) for n, bell in enumerate(bells)]
    assert [one is not None for one in claims] == [True, False, False]


def test_the_limit_holds_over_all_queues(ledger: Ledger) -> None:
    bells = [
        submit(ledger, tenant="a"),
        submit(ledger, tenant="a", priority="bulk"),
        submit(ledger, tenant="a", model="m"),
    ]
    claims = [claim(ledger, bell, f"t{n}", most=1) for n, bell in enumerate(bells)]
    assert [one is not None for one in claims] == [True, False, False]
    assert claims[0] is not None
    finish(ledger, claims[0], q1="yes")
    rung = ledger.ring_next(bells[0].job_id, tenant_running=1)
    assert {bell.queue for bell in rung} == {bells[1].queue, bells[2].queue}
    begun = [claim(ledger, bell, f"u{n}", most=1) for n, bell in enumerate(rung)]
    assert [one is not None for one in begun] == [True, False]


def test_nobody_rings_for_jobs_that_may_not_begin(ledger: Ledger) -> None:
    bells = [submit(ledger, tenant="a") for _ in range(5)]
    for n, bell in enumerate(bells):
        claim(ledger, bell, f"t{n}")
    for _ in range(3):
        assert ledger.reap(grace_s=0, tenant_running=2, empty_queues=[bells[0].queue]) == []


def test_a_bell_that_is_lost_when_a_job_ends_is_rung_again(ledger: Ledger) -> None:
    bells = [submit(ledger, tenant="a") for _ in range(5)]
    claims = [claim(ledger, bell, f"t{n}") for n, bell in enumerate(bells)]
    assert claims[1] is not None
    finish(ledger, claims[1], q1="yes")  # and its worker dies before it rings
    ledger.reap(grace_s=0, tenant_running=2, empty_queues=[bells[0].queue])
    (rung,) = ledger.reap(grace_s=0, tenant_running=2, empty_queues=[bells[0].queue])
    begun = claim(ledger, rung, "later")
    assert begun is not None
    assert begun.job_id == bells[2].job_id


def test_jobs_of_a_worker_that_died_count_no_longer(ledger: Ledger) -> None:
    bells = [submit(ledger, tenant="a", max_attempts=1) for _ in range(5)]
    for n, bell in enumerate(bells):
        ledger.claim(bell, worker="w", lease_s=0, token=f"t{n}", tenant_running=2)
    rung = ledger.reap(grace_s=60, tenant_running=2)
    assert [ledger.get(bell.job_id).state for bell in bells] == ["failed"] * 2 + ["queued"] * 3
    assert [bell.job_id for bell in rung] == [bells[2].job_id, bells[3].job_id]
    assert all(claim(ledger, bell, f"u{n}") for n, bell in enumerate(rung))


def test_a_running_job_whose_record_was_deleted_counts_no_longer(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bells = [submit(ledger, tenant="a") for _ in range(3)]
    first = claim(ledger, bells[0], "1", most=1)
    assert first is not None
    redis_client.delete(ledger.keys.job(first.job_id))
    assert claim(ledger, bells[1], "2", most=1) is None
    redis_client.zadd(ledger.keys.leases, {first.job_id: 0})
    ledger.reap(grace_s=60, tenant_running=1)
    assert claim(ledger, bells[2], "3", most=1) is not None


def test_in_a_race_no_tenant_exceeds_its_limit_and_no_job_is_lost(
    settings: Settings, ledger: Ledger, redis_client: redis.Redis
) -> None:
    most, tenants, jobs = 2, ["a", "b", None], 120
    bells: SimpleQueue[Bell] = SimpleQueue()
    for n in range(jobs):
        bells.put(submit(ledger, tenant=tenants[n % 3]))
    lock, running, done, broken = threading.Lock(), Counter[str | None](), [0], [0]

    def work(name: str) -> None:
        for n in range(1000):
            try:
                bell = bells.get(timeout=0.5)
            except Empty:
                return
            claimed = claim(ledger, bell, f"{name}.{n}", most)
            if claimed is None:
                continue
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
            for rung in ledger.ring_next(claimed.job_id, tenant_running=most):
                bells.put(rung)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (done[0], broken[0]) == (jobs, 0)
    left = [key for key in redis_client.keys(f"{settings.prefix}:*") if "running" in str(key)]
    assert left == []


@pytest.fixture
def rung() -> SimpleQueue[Bell]:
    return SimpleQueue()


@pytest.fixture
def limited(
    settings: Settings, ledger: Ledger, tmp_path: Path, model: Model, rung: SimpleQueue[Bell]
) -> Attempts:
    own = WorkerSettings(
        redis_url=settings.redis_url,
        prefix=settings.prefix,
        output=(tmp_path / "results").as_uri() + "/{job_id}.json",
        tenant_running=1,
    )
    cache = AnswerCache(ledger, ObjectStore(), model="demo", revision="sha256:demo", ttl_s=0)
    return make_attempts(own, ledger, model, ObjectStore(file_roots=(tmp_path,)), cache, rung.put)


def test_a_job_that_waits_for_its_tenant_holds_no_slot(
    ledger: Ledger, client: Client, model: Model, limited: Attempts, rung: SimpleQueue[Bell]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer_slowly() -> None:
        begun.set()
        go_on.wait(30)

    model.meanwhile = answer_slowly
    first, second = submit(ledger, tenant="a"), submit(ledger, tenant="a")
    thread = threading.Thread(target=limited.process, args=(first,))
    thread.start()
    assert begun.wait(30)
    other = submit(ledger, tenant="b")
    assert limited.process(second), "the slot is free again, at once"
    assert client.get(second.job_id).state == "queued"
    assert client.get(other.job_id).state == "succeeded", "the bell led to another tenant's job"
    assert limited.process(replace(other, bell=4))
    assert client.get(second.job_id).state == "queued"
    go_on.set()
    thread.join(30)
    assert limited.process(rung.get(timeout=30))
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
    assert claim(ledger, first, "1", most=1)
    said = client.get(second.job_id).waiting_for
    assert said == "a running job of its tenant to end; at most 1 run at once"
