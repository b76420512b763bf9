"""The life of a job on a real Valkey: every transition, and every write that must be refused."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
import redis
from support.attempts import Recorded
from support.processes import wait_until

from videoqa import errors
from videoqa.contract import (
    Answer,
    Failure,
    GenerationInForce,
    JobRequest,
    QueueInfo,
    Result,
    WorkerInfo,
)
from videoqa.jobs import (
    CachedObject,
    Claim,
    ClaimResult,
    Ledger,
    Progress,
    ReapResult,
    Submission,
    SubmitResult,
    new_job_id,
    queue_name,
)

DAY = 86_400.0


def request(**fields: object) -> JobRequest:
    return JobRequest.model_validate(
        {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"], **fields}
    )


def submit(ledger: Ledger, **fields: object) -> Recorded:
    made = request(**fields)
    result = ledger.submit(Submission(new_job_id(), made), start_by_default_s=DAY)
    assert result.is_new
    queue = queue_name(ledger.keys.prefix, made.model, made.priority)
    return Recorded(str(result.job_id), queue, result.ring)


def claim(
    ledger: Ledger,
    job: Recorded,
    *,
    lease_s: float = 30,
    token: str | None = None,
    worker: str = "w",
) -> Claim:
    """Claims from the job's queue; the token is the attempt's number, unless the test is about tokens."""
    token = token or str(ledger.get(job.job_id).attempt + 1)
    result = ledger.claim([job.queue], worker=worker, lease_s=lease_s, token=token)
    assert result.claim is not None, result
    return result.claim


def failure(*, retryable: bool, attempt: int = 1) -> Failure:
    return Failure(code="model_error", message="boom", retryable=retryable, attempt=attempt)


def some_result(job_id: str, attempt: int = 1) -> Result:
    now = datetime.now(UTC)
    made = request()
    return Result(
        job_id=job_id,
        answers=(
            Answer(question_id="q1", question="What is it?", text="a cat", finish_reason="stop",
                   input_tokens=5, output_tokens=2),
        ),
        frames=(), sources=(), model="demo", sampling=made.sampling, generation=GenerationInForce.of(made.generation),
        usage={"frames": 0}, attempt=attempt, created_at=now, finished_at=now,
    )  # fmt: skip


def states(ledger: Ledger, job_id: str) -> list[str]:
    return [event.state for event in ledger.read_events(job_id) if event.type == "state"]


def test_a_job_goes_from_queued_over_running_to_succeeded(ledger: Ledger) -> None:
    bell = submit(ledger)
    assert ledger.get(bell.job_id).state == "queued"
    got = claim(ledger, bell)
    assert (got.attempt, got.request) == (1, request())
    assert ledger.get(bell.job_id).state == "running"
    assert ledger.progress(bell.job_id, "1", Progress("sampling", done=1, total=2)) == "ok"
    assert ledger.get(bell.job_id).stage == "sampling"
    result = some_result(bell.job_id)
    assert ledger.finish(bell.job_id, "1", result=result, result_url="file:///r.json") == "ok"
    job, stored = ledger.result(bell.job_id)
    assert (job.state, job.result_url, stored) == ("succeeded", "file:///r.json", result)
    assert states(ledger, bell.job_id) == ["queued", "running", "succeeded"]


def test_a_job_is_claimed_once_however_often_a_bell_rings(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    assert ledger.claim([bell.queue], worker="w2", lease_s=30, token="b").claim is None
    ledger.finish(bell.job_id, "1", result=None, result_url="file:///r")
    again = ledger.claim([bell.queue], worker="w2", lease_s=30, token="c")
    assert (again.claim, again.reason) == (None, "nothing waits")


def test_a_claim_tells_if_more_jobs_wait_in_the_queues_of_the_worker(ledger: Ledger) -> None:
    first, second = submit(ledger), submit(ledger, priority="bulk")
    queues = [first.queue, second.queue]
    told = [ledger.claim(queues, worker="w", lease_s=30, token=str(n)).more_wait for n in range(3)]
    assert told == [True, False, False]


def test_the_same_claim_repeated_after_a_lost_reply_is_the_same_claim(ledger: Ledger) -> None:
    bell = submit(ledger)
    first = claim(ledger, bell, token="same")
    again = claim(ledger, bell, token="same")
    assert (first.job_id, first.attempt) == (again.job_id, again.attempt)
    assert ledger.get(bell.job_id).attempt == 1


def test_a_job_that_was_given_back_begins_its_next_attempt(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    assert ledger.release(bell.job_id, "1") == bell.queue
    assert claim(ledger, bell, token="2").attempt == 2
    assert ledger.claim([bell.queue], worker="w2", lease_s=30, token="x").claim is None


def test_the_first_job_in_line_begins(ledger: Ledger) -> None:
    first, second = submit(ledger), submit(ledger)
    assert claim(ledger, second, token="a").job_id == first.job_id
    again = claim(ledger, second, token="a")  # its reply was lost
    assert (again.job_id, again.attempt) == (first.job_id, 1)
    assert claim(ledger, first, token="b").job_id == second.job_id


def test_a_claim_takes_from_the_first_of_its_queues_that_has_a_job(ledger: Ledger) -> None:
    bulk, other = submit(ledger, priority="bulk"), submit(ledger, model="m")
    queues = [queue_name(ledger.keys.prefix, None, "interactive"), bulk.queue, other.queue]
    found = []
    for n in range(3):
        got = ledger.claim(queues, worker="w", lease_s=30, token=f"t{n}").claim
        found.append(got and got.job_id)
    assert found == [bulk.job_id, other.job_id, None]


def test_a_record_that_was_deleted_by_hand_or_evicted_blocks_no_queue(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    gone, alone, lives = submit(ledger), submit(ledger, tenant="a"), submit(ledger, tenant="b")
    redis_client.delete(ledger.keys.job(gone.job_id), ledger.keys.job(alone.job_id))
    assert claim(ledger, lives, token="x").job_id == lives.job_id
    assert ledger.claim([gone.queue], worker="w", lease_s=30, token="y").claim is None
    assert redis_client.exists(ledger.keys.turns(gone.queue), ledger.keys.waiting(gone.queue)) == 0


def begin_all(ledger: Ledger, bells: list[Recorded]) -> list[str | None]:
    """Claims a job for each bell, and returns the tenants of the jobs in order."""
    return [claim(ledger, bell, token=f"t{bell.job_id}").request.tenant or "none" for bell in bells]


def test_tenants_take_turns_however_much_one_of_them_has_submitted(ledger: Ledger) -> None:
    bells = [submit(ledger, tenant="big") for _ in range(6)]
    bells += [submit(ledger, tenant="small") for _ in range(2)]
    bells += [submit(ledger) for _ in range(2)]
    assert begin_all(ledger, bells) == [
        "none", "big", "small", "none", "big", "small", "big", "big", "big", "big",
    ]  # fmt: skip


def test_jobs_of_one_tenant_begin_in_their_order(ledger: Ledger) -> None:
    ids: dict[str, list[str]] = {"a": [], "b": []}
    bells = []
    for tenant in "aaaabab":
        bells.append(submit(ledger, tenant=tenant))
        ids[tenant].append(bells[-1].job_id)
    found: dict[str, list[str]] = {"a": [], "b": []}
    for bell in bells:
        got = claim(ledger, bell, token=f"t{bell.job_id}")
        found[str(got.request.tenant)].append(got.job_id)
    assert found == ids


def test_a_job_that_has_begun_keeps_its_place_before_a_backlog_that_came_later(
    ledger: Ledger,
) -> None:
    bells = [submit(ledger) for _ in range(6)]
    given_back, lost, failed = (
        claim(ledger, bells[n], token=f"t{n}", lease_s=0.05) for n in range(3)
    )
    ledger.release(given_back.job_id, "t0")
    ledger.fail(failed.job_id, "t2", failure(retryable=True), delay_s=0)
    time.sleep(0.1)
    ledger.reap(grace_s=60)
    assert ledger.get(lost.job_id).position == 1
    began = [claim(ledger, bells[0], token=f"u{n}").job_id for n in range(6)]
    assert began == [bell.job_id for bell in bells]
    assert ledger.fail(bells[0].job_id, "u0", failure(retryable=False), delay_s=0) == "failed"
    late = submit(ledger)
    ledger.retry(bells[0].job_id)  # whoever retries stands in line anew
    assert claim(ledger, late, token="v").job_id == late.job_id


def test_who_comes_late_does_not_get_all_the_turns_that_were_missed(ledger: Ledger) -> None:
    old = [submit(ledger, tenant="old") for _ in range(8)]
    assert begin_all(ledger, old[:4]) == ["old"] * 4
    new = [submit(ledger, tenant="new") for _ in range(4)]
    assert begin_all(ledger, [*old[4:], *new]) == ["new", "old"] * 4


def test_a_position_counts_the_turns_of_others(ledger: Ledger) -> None:
    bells = [submit(ledger, tenant=tenant) for tenant in ("a", "a", "a", "b", "c", "b")]
    places = {bell.job_id: ledger.get(bell.job_id).position for bell in bells}
    for bell in bells:
        ledger_place = claim(ledger, bell, token=f"t{bell.job_id}").job_id
        assert places.pop(ledger_place) == bells.index(bell)
    assert places == {}


def test_a_line_that_one_cancels_out_of_is_forgotten(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = submit(ledger, tenant="a")
    ledger.cancel(bell.job_id)
    keys = ledger.keys
    lines = keys.waiting(bell.queue), keys.line(bell.queue, "a"), keys.turns(bell.queue)
    assert redis_client.exists(*lines) == 0
    assert ledger.claim([bell.queue], worker="w", lease_s=30, token="x").claim is None


def test_no_job_of_a_paused_queue_begins_and_all_do_when_it_goes_on(ledger: Ledger) -> None:
    first, second = submit(ledger), submit(ledger, tenant="a")
    assert ledger.pause(first.queue)
    assert not ledger.pause(first.queue)
    for bell in (first, second):
        assert (
            ledger.claim([bell.queue], worker="w", lease_s=30, token="x").reason
            == "its queue is paused"
        )
    assert ledger.get(first.job_id).waiting_for == "its queue is paused"
    assert ledger.reap(grace_s=0) == ReapResult(ring=[], doubtful=[])
    (queue,) = ledger.queues()
    assert queue.paused_s is not None
    assert 0 <= queue.paused_s < 60
    assert queue.start_by_s is not None
    assert 0 < queue.start_by_s <= DAY
    since = dict.fromkeys(("oldest_s", "paused_s", "start_by_s"))
    assert queue.model_copy(update=since) == QueueInfo(
        model=None,
        priority="interactive",
        waiting=2,
        tenants=2,
        paused=True,
        workers=0,
        oldest_at=ledger.get(first.job_id).created_at,
    )
    assert ledger.resume(first.queue) == (True, first.queue)
    assert ledger.resume(first.queue) == (False, None)
    assert [claim(ledger, job, token=job.job_id).job_id for job in (first, second)] == [
        first.job_id,
        second.job_id,
    ]
    (queue,) = ledger.queues()
    assert (queue.paused, queue.waiting) == (False, 0)


def test_all_tenants_together_fill_a_queue(ledger: Ledger) -> None:
    for tenant in ("a", "b"):
        submit(ledger, tenant=tenant)
    with pytest.raises(errors.QueueFull):
        ledger.submit(
            Submission(new_job_id(), request(tenant="c")), start_by_default_s=DAY, max_queued=2
        )


def test_a_claim_of_a_queue_without_jobs_gets_none(ledger: Ledger) -> None:
    result = ledger.claim(["q"], heard="q", worker="w", lease_s=30, token="x")
    assert (result.claim, result.reason, list(result.ring)) == (None, "nothing waits", [])


def test_a_worker_that_lost_its_lease_cannot_write(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell, lease_s=0.05)
    wait_until(lambda: ledger.reap(grace_s=60).ring)
    assert ledger.get(bell.job_id).state == "queued"
    assert ledger.renew([(bell.job_id, "1")], lease_s=30) == ["lost"]
    assert ledger.progress(bell.job_id, "1", Progress("storing")) == "lost"
    assert ledger.finish(bell.job_id, "1", result=None, result_url="u") == "lost"
    assert ledger.fail(bell.job_id, "1", failure(retryable=False), delay_s=0) == "lost"
    assert ledger.release(bell.job_id, "1") is None
    assert ledger.get(bell.job_id).state == "queued"


def test_a_late_writer_cannot_disturb_the_next_attempt(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell, lease_s=0.05)
    wait_until(lambda: ledger.reap(grace_s=60).ring)
    claim(ledger, bell)
    assert (
        ledger.finish(bell.job_id, "1", result=some_result(bell.job_id), result_url="u") == "lost"
    )
    assert ledger.get(bell.job_id).state == "running"
    assert ledger.finish(bell.job_id, "2", result=None, result_url="v") == "ok"
    assert ledger.get(bell.job_id).result_url == "v"


def test_a_renewed_lease_is_not_reaped(ledger: Ledger, redis_client: redis.Redis) -> None:
    bell = submit(ledger)
    claim(ledger, bell, lease_s=60)
    ledger.reap(grace_s=60)
    for _ in range(5):
        _let_time_go_by(40, ledger, redis_client, bell.job_id)
        assert ledger.renew([(bell.job_id, "1")], lease_s=60) == ["ok"]
        assert ledger.reap(grace_s=60).ring == []
    assert ledger.get(bell.job_id).state == "running"


def test_a_job_whose_workers_all_vanish_fails_after_its_attempts(ledger: Ledger) -> None:
    bell = submit(ledger, max_attempts=2)
    for attempt in (1, 2):
        claim(ledger, bell, lease_s=0.03, token=str(attempt))
        ledger.progress(bell.job_id, str(attempt), Progress("fetching"))
        time.sleep(0.05)
        assert ledger.reap(grace_s=60).ring == ([bell.queue] if attempt == 1 else [])
    job = ledger.get(bell.job_id)
    assert job.state == "failed"
    assert job.failure is not None
    assert (job.failure.code, job.failure.attempt, job.failure.retryable) == (
        "worker_lost",
        2,
        True,
    )


# -- exclusive attempts


def suspects(ledger: Ledger, count: int, **fields: object) -> list[Recorded]:
    """Jobs that lost their worker and have one attempt left."""
    bells = [submit(ledger, max_attempts=2, **fields) for _ in range(count)]
    for bell in bells:
        claim(ledger, bell, lease_s=0.01, token=new_job_id())
    ids = [bell.job_id for bell in bells]
    wait_until(lambda: (ledger.reap(grace_s=60), set(ledger.get_states(ids)) == {"queued"})[1])
    return bells


def suspect(ledger: Ledger, **fields: object) -> Recorded:
    return suspects(ledger, 1, **fields)[0]


def claim_busily(ledger: Ledger, bell: Recorded, *, worker: str = "w") -> ClaimResult:
    """A claim of a worker in which something else runs."""
    return ledger.claim([bell.queue], worker=worker, lease_s=30, token=new_job_id(), is_idle=False)


def test_an_exclusive_attempt_is_for_an_idle_worker_and_a_busy_one_is_reserved_for_it(
    ledger: Ledger,
) -> None:
    bell = suspect(ledger)
    other = submit(ledger)
    for _ in range(2):
        result = claim_busily(ledger, bell)
        assert (result.must_wait, result.is_claimed) == (True, False)
    job = ledger.get(bell.job_id)
    assert (job.state, job.attempt) == ("queued", 1)  # its attempt and its time have not begun
    last = claim(ledger, bell, token="idle")
    assert (last.job_id, last.is_exclusive, last.attempt) == (bell.job_id, True, 2)
    again = claim(ledger, bell, token="idle")  # the same call: its reply was lost
    assert (again.job_id, again.is_exclusive, again.attempt) == (bell.job_id, True, 2)
    result = claim_busily(ledger, other)
    assert result.claim is not None
    assert (result.claim.job_id, result.claim.is_exclusive) == (other.job_id, False)


def test_while_one_worker_is_reserved_the_other_busy_ones_take_what_stands_behind_the_job(
    ledger: Ledger,
) -> None:
    first, second = suspects(ledger, 2)
    others = [submit(ledger) for _ in range(2)]
    assert claim_busily(ledger, first, worker="reserved").must_wait
    for other in others:
        result = claim_busily(ledger, first, worker="other")
        assert result.claim is not None
        assert result.claim.job_id == other.job_id
    assert claim_busily(ledger, first, worker="other").reason == "nothing waits"
    idle = ledger.claim([first.queue], worker="idle", lease_s=30, token="idle")
    assert idle.claim is not None
    assert (idle.claim.job_id, idle.is_exclusive) == (first.job_id, True)
    assert claim_busily(ledger, first, worker="reserved").must_wait  # for the next one
    assert claim(ledger, first, worker="reserved", token="next").job_id == second.job_id


def test_a_reserved_worker_gets_its_job_whoever_else_is_first_in_line(ledger: Ledger) -> None:
    bell = suspect(ledger, tenant="b")
    assert claim_busily(ledger, bell).must_wait
    submit(ledger, tenant="a")
    assert claim_busily(ledger, bell).must_wait
    assert claim(ledger, bell, token="idle").job_id == bell.job_id


def test_a_worker_is_no_longer_reserved_when_the_job_no_longer_waits(ledger: Ledger) -> None:
    bell = suspect(ledger)
    assert claim_busily(ledger, bell).must_wait
    ledger.cancel(bell.job_id)
    other = submit(ledger)
    result = claim_busily(ledger, bell)
    assert result.claim is not None
    assert result.claim.job_id == other.job_id


def test_another_worker_is_reserved_if_the_first_is_not_heard_of_for_ten_seconds(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = suspect(ledger)
    assert claim_busily(ledger, bell, worker="dies").must_wait
    key = f"{ledger.keys.prefix}:reserved:{bell.queue}"
    assert 5 < float(str(redis_client.ttl(key))) <= 10
    assert not claim_busily(ledger, bell, worker="other").must_wait
    redis_client.delete(key)
    assert claim_busily(ledger, bell, worker="other").must_wait


def test_a_claim_passes_by_a_hundred_exclusive_jobs_at_most(ledger: Ledger) -> None:
    bells = suspects(ledger, 101)
    assert claim_busily(ledger, bells[0], worker="reserved").must_wait
    result = claim_busily(ledger, bells[0], worker="other")
    assert (result.must_wait, bells[100].job_id in result.reason) == (True, True)


def test_a_tenant_whose_job_was_passed_by_does_not_catch_up_by_several_turns(
    ledger: Ledger,
) -> None:
    bell = suspect(ledger, tenant="a")
    assert claim_busily(ledger, bell, worker="reserved").must_wait
    for _ in range(6):
        submit(ledger, tenant="b")
    for _ in range(4):
        assert claim_busily(ledger, bell).is_claimed
    for _ in range(4):
        submit(ledger, tenant="a")
    order = []
    for _ in range(4):
        result = claim_busily(ledger, bell)
        assert result.claim is not None
        order.append(result.claim.request.tenant)
    assert order.count("b") == 1  # tenants with the same turn come by their names


def test_a_job_that_is_for_an_idle_worker_tells_why_it_waits(ledger: Ledger) -> None:
    bell = suspect(ledger)
    now = datetime.now(UTC)
    worker = WorkerInfo(
        id="w", model="demo", queues=(bell.queue,), slots=1, running=0, ready=True,
        started_at=now, seen_at=now,
    )  # fmt: skip
    ledger.announce(worker)
    assert "nothing else runs" in (ledger.get(bell.job_id).waiting_for or "")
    claim(ledger, bell, token="idle")
    assert ledger.get(bell.job_id).waiting_for is None


def test_a_worker_that_asks_late_leaves_the_reservation_of_another_one(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    job = suspect(ledger)
    key = f"{ledger.keys.prefix}:reserved:{job.queue}"
    assert claim_busily(ledger, job, worker="late").must_wait
    redis_client.delete(key)  # its 10 s are over
    assert claim_busily(ledger, job, worker="new").must_wait
    assert claim_busily(ledger, job, worker="late").reason == "nothing waits"
    assert redis_client.hget(key, "worker") == "new"
    assert claim_busily(ledger, job, worker="new").must_wait


def test_a_job_whose_last_exclusive_attempt_loses_its_worker_fails(ledger: Ledger) -> None:
    bell = suspect(ledger)
    claim(ledger, bell, lease_s=0.01)
    time.sleep(0.03)
    assert ledger.reap(grace_s=60).ring == []
    job = ledger.get(bell.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code, job.attempt) == ("failed", "worker_lost", 2)


def test_only_a_job_whose_worker_ended_gets_its_last_attempt_to_itself(ledger: Ledger) -> None:
    bell = submit(ledger, max_attempts=3)
    for code, alone in (("model_error", False), ("engine_stopped", False), ("model_error", True)):
        last = claim(ledger, bell)
        assert last.is_exclusive == alone
        why = failure(retryable=True, attempt=last.attempt).model_copy(update={"code": code})
        ledger.fail(bell.job_id, str(last.attempt), why, delay_s=0)
        assert ledger.reap(grace_s=60).ring == ([] if alone else [bell.queue])
    ledger.retry(bell.job_id)
    assert not claim(ledger, bell).is_exclusive


def test_a_worker_that_hangs_past_the_deadline_loses_the_job_despite_its_heartbeat(
    ledger: Ledger,
) -> None:
    bell = submit(ledger, timeout_s=2)
    claim(ledger, bell, lease_s=1)
    answers = ledger.renew([(bell.job_id, "1")], lease_s=1)
    assert answers == ["ok"]
    wait_until(lambda: ledger.renew([(bell.job_id, "1")], lease_s=1) == ["lost"])
    wait_until(lambda: (ledger.reap(grace_s=60), ledger.get(bell.job_id).final)[1])
    job = ledger.get(bell.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code) == ("failed", "job_timeout")


def test_a_job_whose_worker_vanished_within_its_time_is_tried_again_though_the_lease_ends_behind_it(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = submit(ledger, timeout_s=30)
    claim(ledger, bell, lease_s=60)
    ledger.reap(grace_s=60)
    _let_time_go_by(24, ledger, redis_client, bell.job_id)
    assert ledger.renew([(bell.job_id, "1")], lease_s=6.5) == ["ok"]  # its last word
    assert ledger.reap(grace_s=60).ring == []
    _let_time_go_by(7, ledger, redis_client, bell.job_id)
    assert ledger.reap(grace_s=60).ring == [bell.queue]
    job = ledger.get(bell.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code) == ("queued", "worker_lost")


def test_a_retryable_failure_waits_and_is_tried_again(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    assert ledger.fail(bell.job_id, "1", failure(retryable=True), delay_s=0.3) == "retry"
    job = ledger.get(bell.job_id)
    assert job.state == "queued"
    assert job.next_attempt_at is not None
    assert job.failure is not None
    assert ledger.reap(grace_s=60).ring == []
    wait_until(lambda: ledger.reap(grace_s=60).ring)
    assert claim(ledger, bell).attempt == 2
    ledger.finish(bell.job_id, "2", result=None, result_url="u")
    assert ledger.get(bell.job_id).failure is None


def nan(param: str, attempt: int) -> Failure:
    message = "the model produced NaN or infinite logits"
    return Failure(code="nan_logits", message=message, retryable=True, attempt=attempt, param=param)


def fail_attempt(ledger: Ledger, job: Recorded, failed: Failure) -> str:
    """Claims the job for another worker, and ends that attempt with the failure."""
    worker, token = f"w{failed.attempt}", str(failed.attempt)

    def is_claimed() -> bool:
        ledger.reap(grace_s=60)
        return bool(ledger.claim([job.queue], worker=worker, lease_s=30, token=token).claim)

    wait_until(is_claimed)
    return ledger.fail(job.job_id, token, failed, delay_s=0)


def test_nan_logits_are_retried_once_on_the_same_input(ledger: Ledger) -> None:
    job = submit(ledger, max_attempts=9)
    assert fail_attempt(ledger, job, nan("questions.0", 1)) == "retry"
    assert fail_attempt(ledger, job, nan("questions.1", 2)) == "retry", "another input"
    assert fail_attempt(ledger, job, failure(retryable=True, attempt=3)) == "retry"
    assert fail_attempt(ledger, job, nan("questions.0", 4)) == "failed"
    found = ledger.get(job.job_id).failure
    assert found is not None
    assert (found.code, found.retryable, found.attempt) == ("nan_logits", False, 4)
    assert "attempt 1 failed in this way on the same input" in found.message
    # Whoever retries it may have changed the model's dtype.
    assert ledger.retry(job.job_id)
    assert fail_attempt(ledger, job, nan("questions.0", 5)) == "retry"
    assert fail_attempt(ledger, job, nan("questions.0", 6)) == "failed"


def test_a_video_that_crashed_two_decoders_is_not_given_to_a_third(ledger: Ledger) -> None:
    job = submit(ledger, max_attempts=9)
    crashes = [
        Failure(
            code="decoder_crashed", message="SIGSEGV", retryable=True, attempt=n, param="inputs.0"
        )
        for n in (1, 2)
    ]
    assert [fail_attempt(ledger, job, crash) for crash in crashes] == ["retry", "failed"]


def test_other_failures_are_retried_as_often_as_the_job_allows(ledger: Ledger) -> None:
    job = submit(ledger, max_attempts=4)
    ends = [fail_attempt(ledger, job, failure(retryable=True, attempt=n)) for n in (1, 2, 3, 4)]
    assert ends == ["retry", "retry", "retry", "failed"]


def test_a_failure_that_cannot_help_ends_the_job_at_once(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    assert ledger.fail(bell.job_id, "1", failure(retryable=False), delay_s=0) == "failed"
    assert ledger.get(bell.job_id).state == "failed"


# -- bells


def hear(ledger: Ledger, queue: str, token: str) -> ClaimResult:
    return ledger.claim([queue], heard=queue, worker="w", lease_s=30, token=token)


def test_a_backlog_is_rung_for_by_a_few_bells(ledger: Ledger) -> None:
    jobs = [submit(ledger) for _ in range(100)]
    assert [job.ring for job in jobs] == [jobs[0].queue] * 64 + [None] * 36
    heard = [hear(ledger, jobs[0].queue, f"t{n}") for n in range(63)]
    assert not any(result.ring for result in heard)  # one is on its way
    assert submit(ledger).ring == jobs[0].queue


def test_a_claim_that_leaves_work_behind_rings_if_no_bell_is_on_its_way(ledger: Ledger) -> None:
    first, second, third = (submit(ledger) for _ in range(3))
    assert [hear(ledger, first.queue, "a").ring, hear(ledger, first.queue, "b").ring] == [[], []]
    submit(ledger), submit(ledger)
    for token in "cde":
        left = hear(ledger, first.queue, token).ring
    assert left == []  # nothing was left
    assert {first.ring, second.ring, third.ring} == {first.queue}
    job = submit(ledger)
    submit(ledger)
    hear(ledger, job.queue, "f")
    claim(ledger, job, token="g")
    assert ledger.claim([job.queue], worker="w", lease_s=30, token="h").claim is None


def test_a_worker_that_takes_another_queues_job_rings_for_the_one_whose_bell_it_heard(
    ledger: Ledger,
) -> None:
    bulk, wanted = submit(ledger, priority="bulk"), submit(ledger)
    got = ledger.claim(
        [wanted.queue, bulk.queue], heard=bulk.queue, worker="w", lease_s=30, token="a"
    )
    assert got.claim is not None
    assert (got.claim.job_id, list(got.ring)) == (wanted.job_id, [bulk.queue])


def test_a_bell_that_was_lost_is_rung_again_when_the_broker_says_that_it_holds_none(
    ledger: Ledger,
) -> None:
    never = submit(ledger)
    assert ledger.reap(grace_s=60) == ReapResult(ring=[], doubtful=[])  # it may be on its way
    time.sleep(0.05)
    assert ledger.reap(grace_s=0.01) == ReapResult(ring=[], doubtful=[never.queue])
    assert ledger.reap(grace_s=60) == ReapResult(ring=[], doubtful=[]), "it is asked about once"
    assert ledger.ring_again([never.queue]) == [never.queue]
    assert claim(ledger, never).job_id == never.job_id
    time.sleep(0.05)
    assert ledger.reap(grace_s=0.01) == ReapResult(ring=[], doubtful=[])


def test_a_queue_whose_bells_were_all_heard_is_rung_again_if_jobs_still_wait(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    jobs = [submit(ledger) for _ in range(3)]
    hear(ledger, jobs[0].queue, "a")
    redis_client.hset(
        ledger.keys.dispatch, jobs[0].queue, 0
    )  # one was rung, and its publisher died
    time.sleep(0.05)
    assert ledger.reap(grace_s=0.01) == ReapResult(ring=[jobs[0].queue], doubtful=[])


def test_turns_that_were_deleted_or_evicted_are_restored(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    jobs = [submit(ledger, tenant=tenant) for tenant in ("a", "b")]
    redis_client.delete(ledger.keys.turns(jobs[0].queue))
    assert ledger.claim([jobs[0].queue], worker="w", lease_s=30, token="x").claim is None
    ledger.reap(grace_s=60)
    assert begin_all(ledger, jobs) == ["a", "b"]


def test_a_round_just_after_another_one_does_nothing(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell, lease_s=0)
    ledger.reap(grace_s=60)
    claim(ledger, bell, lease_s=0)
    assert ledger.reap(grace_s=60, every_s=30).ring == []
    assert ledger.reap(grace_s=60).ring == [bell.queue]


def test_canceling_a_queued_job_ends_it_at_once(ledger: Ledger) -> None:
    bell = submit(ledger)
    ledger.cancel(bell.job_id)
    assert ledger.get(bell.job_id).state == "canceled"
    assert ledger.claim([bell.queue], worker="w", lease_s=30, token="x").claim is None


def test_a_running_job_is_canceling_until_its_worker_stopped(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    ledger.cancel(bell.job_id)
    ledger.cancel(bell.job_id)
    assert ledger.get(bell.job_id).state == "canceling"
    assert ledger.renew([(bell.job_id, "1")], lease_s=30) == ["cancel"]
    assert ledger.fail(bell.job_id, "1", failure(retryable=True), delay_s=0) == "canceled"
    job = ledger.get(bell.job_id)
    assert job.failure is not None
    assert (job.state, job.failure.code) == ("canceled", "canceled")
    assert states(ledger, bell.job_id) == ["queued", "running", "canceling", "canceled"]


def test_an_answer_that_comes_after_the_cancel_is_not_kept(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    ledger.cancel(bell.job_id)
    assert (
        ledger.finish(bell.job_id, "1", result=some_result(bell.job_id), result_url="u") == "cancel"
    )
    job, result = ledger.result(bell.job_id)
    assert (job.state, result) == ("canceled", None)


def test_a_canceling_job_whose_worker_vanished_is_canceled(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell, lease_s=0.03)
    ledger.cancel(bell.job_id)
    wait_until(lambda: (ledger.reap(grace_s=60), ledger.get(bell.job_id).state)[1] == "canceled")


def test_canceling_a_final_job_changes_nothing(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    ledger.finish(bell.job_id, "1", result=None, result_url="u")
    ledger.cancel(bell.job_id)
    assert ledger.get(bell.job_id).state == "succeeded"


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_retry_reopens_an_ended_job_under_its_id_with_the_next_attempt(
    ledger: Ledger, end: str
) -> None:
    bell = submit(ledger, max_attempts=1)
    claim(ledger, bell)
    ledger.fail(bell.job_id, "1", failure(retryable=True), delay_s=0) if end == "fail" else None
    if end == "cancel":
        ledger.cancel(bell.job_id)
        ledger.fail(bell.job_id, "1", failure(retryable=True), delay_s=0)
    assert ledger.retry(bell.job_id) == bell.queue
    job = ledger.get(bell.job_id)
    assert (job.state, job.failure, job.max_attempts) == ("queued", None, 2)
    claim(ledger, bell)
    assert ledger.finish(bell.job_id, "2", result=None, result_url="u") == "ok"


def test_a_succeeded_job_cannot_be_retried(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    ledger.finish(bell.job_id, "1", result=None, result_url="u")
    with pytest.raises(errors.NotRetryable, match="succeeded"):
        ledger.retry(bell.job_id)


def test_an_answer_may_be_kept_for_less_than_a_second(ledger: Ledger) -> None:
    bell, later = submit(ledger), submit(ledger)
    claim(ledger, bell)
    said = ledger.finish(
        bell.job_id,
        "1",
        result=None,
        result_url="u",
        cache_key="k",
        cached=CachedObject.of("u", b"{}"),
        cache_ttl_s=0.9,
    )
    assert (said, ledger.get(bell.job_id).state) == ("ok", "succeeded")
    claim(ledger, later, token="2")
    assert ledger.lead(later.job_id, "2", "k") == CachedObject.of("u", b"{}")


def test_unknown_and_expired_ids_differ(ledger: Ledger, redis_client: redis.Redis) -> None:
    bell = submit(ledger, result_ttl_s=60)
    claim(ledger, bell)
    ledger.finish(bell.job_id, "1", result=None, result_url="u")
    assert 0 < redis_client.ttl(ledger.keys.job(bell.job_id)) <= 60
    assert 0 < redis_client.ttl(ledger.keys.events(bell.job_id)) <= 60
    redis_client.expire(ledger.keys.job(bell.job_id), 0)
    with pytest.raises(errors.JobExpired, match="succeeded"):
        ledger.get(bell.job_id)
    with pytest.raises(errors.JobNotFound):
        ledger.get("job_never")


def test_a_job_not_started_by_its_time_expires(ledger: Ledger) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.1)
    claimed, reaped = submit(ledger, start_by=soon), submit(ledger, start_by=soon)
    time.sleep(0.15)
    assert ledger.claim([claimed.queue], worker="w", lease_s=30, token="x").claim is None
    ledger.reap(grace_s=60)
    for bell in (claimed, reaped):
        job = ledger.get(bell.job_id)
        assert job.failure is not None
        assert (job.state, job.failure.code) == ("expired", "start_by_passed")


def test_one_claim_expires_a_bounded_number_of_jobs(ledger: Ledger) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    late = [submit(ledger, start_by=soon) for _ in range(120)]
    last = submit(ledger)
    time.sleep(1.05)
    result = hear(ledger, last.queue, "a")
    assert (result.reason, list(result.ring)) == (
        "start_by has passed",
        [],
    )  # bells are on their way
    assert ledger.get(late[99].job_id).state == "expired"
    assert ledger.get(late[100].job_id).state == "queued"
    assert claim(ledger, late[1], token="b").job_id == last.job_id


def _let_start_by_pass(ledger: Ledger, redis_client: redis.Redis, job_id: str) -> None:
    """Moves the time back in the record, and in the list of those that may expire if the job is still there."""
    redis_client.hset(ledger.keys.job(job_id), "start_by", time.time() - 1)
    redis_client.zadd(f"{ledger.keys.prefix}:startby", {job_id: time.time() - 1}, xx=True)


def test_a_running_job_does_not_expire_by_start_by(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    _let_start_by_pass(ledger, redis_client, bell.job_id)
    ledger.reap(grace_s=60)
    assert ledger.get(bell.job_id).state == "running"


def test_the_same_idempotency_key_and_request_make_one_job(ledger: Ledger) -> None:
    bell = submit(ledger, idempotency_key="k")
    again = ledger.submit(
        Submission(new_job_id(), request(idempotency_key="k")), start_by_default_s=DAY
    )
    assert again.known_id == bell.job_id
    with pytest.raises(errors.IdempotencyConflict, match=bell.job_id):
        ledger.submit(
            Submission(new_job_id(), request(idempotency_key="k", questions=["Other?"])),
            start_by_default_s=DAY,
        )


def test_a_submit_repeated_after_a_lost_reply_makes_one_job(ledger: Ledger) -> None:
    submission = Submission(new_job_id(), request(idempotency_key="z"))
    first = ledger.submit(submission, start_by_default_s=DAY)
    again = ledger.submit(submission, start_by_default_s=DAY)
    assert first == again


def test_a_queued_job_says_why_it_waits(ledger: Ledger) -> None:
    first, second = submit(ledger, model="org/m"), submit(ledger, model="org/m")
    job = ledger.get(second.job_id)
    assert (job.position, job.waiting_for) == (1, "no running worker serves model org/m")
    now = datetime.now(UTC)
    info = WorkerInfo(
        id="w", model="org/m", queues=(first.queue,), slots=1, running=0, ready=False,
        started_at=now, seen_at=now,
    )  # fmt: skip
    ledger.announce(info)
    assert ledger.get(second.job_id).waiting_for == "its workers are still loading the model"
    ledger.announce(info.model_copy(update={"ready": True}))
    assert ledger.get(second.job_id).waiting_for == "a free worker"
    ledger.announce(info.model_copy(update={"state": "draining"}))
    assert ledger.get(second.job_id).waiting_for == "another worker: those that there are shut down"
    ledger.announce(info.model_copy(update={"id": "w2", "state": "loading"}))
    assert ledger.get(second.job_id).waiting_for == "its workers are still loading the model"
    ledger.leave("w2")
    ledger.announce(info.model_copy(update={"state": "broken"}))
    assert (ledger.get(second.job_id).waiting_for or "").startswith("another worker: the engines")
    ledger.leave("w")
    assert ledger.workers() == []


def test_a_released_job_keeps_all_its_attempts(ledger: Ledger) -> None:
    bell = submit(ledger, max_attempts=1)
    claim(ledger, bell)
    ledger.release(bell.job_id, "1")
    claim(ledger, bell)
    assert ledger.fail(bell.job_id, "2", failure(retryable=True), delay_s=0) == "failed"


def test_nothing_of_a_finished_job_stays_in_the_indexes(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    for end in ("finish", "fail", "cancel"):
        bell = submit(ledger, idempotency_key=end)
        claim(ledger, bell)
        if end == "finish":
            ledger.finish(bell.job_id, "1", result=None, result_url="u")
        elif end == "fail":
            ledger.fail(bell.job_id, "1", failure(retryable=False), delay_s=0)
        else:
            ledger.cancel(bell.job_id)
            ledger.fail(bell.job_id, "1", failure(retryable=False), delay_s=0)
    prefix = ledger.keys.prefix
    for key in redis_client.scan_iter(f"{prefix}:*"):
        if key.removeprefix(f"{prefix}:") in (
            "dispatch",
            "ended",
            "list:canceled::",
            "list:dead::",
            "list:dead::model_error",
            "list:failed::",
            "list:succeeded::",
            "queues",
            "round",
        ):
            continue
        assert redis_client.ttl(key) > 0, f"{key} has no lifetime"


def test_events_can_be_read_from_where_one_left_off(ledger: Ledger) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    first = ledger.read_events(bell.job_id)
    ledger.progress(bell.job_id, "1", Progress("generating", done=1, total=3))
    (new,) = ledger.read_events(bell.job_id, after=first[-1].id)
    assert (new.type, new.stage, new.done, new.total) == ("stage", "generating", 1, 3)
    assert ledger.read_events(bell.job_id, after=new.id) == []


def test_an_attempt_number_that_redis_hands_out_twice_fences_all_the_same(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = submit(ledger)
    claim(ledger, bell, token="before")
    # Redis loses its last second: the record is as it was before the claim.
    redis_client.hset(ledger.keys.job(bell.job_id), mapping={"state": "queued", "attempt": 0})
    redis_client.hdel(ledger.keys.job(bell.job_id), "token")
    redis_client.zadd(ledger.keys.line(bell.queue), {bell.job_id: 1})
    redis_client.zadd(ledger.keys.turns(bell.queue), {"": 1})
    claim(ledger, bell, token="after")
    assert ledger.renew([(bell.job_id, "before")], lease_s=30) == ["lost"]
    assert ledger.finish(bell.job_id, "before", result=None, result_url="a") == "lost"
    assert ledger.finish(bell.job_id, "after", result=None, result_url="b") == "ok"
    assert ledger.finish(bell.job_id, "after", result=None, result_url="b") == "ok"  # lost reply
    assert ledger.finish(bell.job_id, "before", result=None, result_url="a") == "lost"
    assert ledger.get(bell.job_id).result_url == "b"


def test_after_an_outage_live_workers_may_renew_before_their_jobs_are_reaped(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    ledger.reap(grace_s=60)
    lives, dead = submit(ledger), submit(ledger)
    for bell in (lives, dead):
        claim(ledger, bell, lease_s=0.05, token=bell.job_id)
    time.sleep(0.1)
    # Nobody could reach Redis for a minute, so no reaper was heard either.
    redis_client.set(ledger.keys.round, time.time() - 60)
    assert ledger.reap(grace_s=60).ring == []
    assert ledger.renew([(lives.job_id, lives.job_id)], lease_s=30) == ["ok"]
    redis_client.zadd(ledger.keys.leases, {dead.job_id: time.time() - 1})
    assert ledger.reap(grace_s=60).ring == [dead.queue]
    assert ledger.get_states([lives.job_id, dead.job_id]) == ["running", "queued"]


def test_a_lost_job_is_found_however_seldom_anybody_looks(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    bell = submit(ledger)
    claim(ledger, bell, lease_s=0.05)
    ledger.reap(grace_s=60)
    rung: list[str] = []
    for _ in range(2):
        _let_time_go_by(15, ledger, redis_client, bell.job_id)
        rung += ledger.reap(grace_s=60).ring
    assert rung == [bell.queue]


def test_a_job_whose_worker_ended_in_a_long_outage_is_tried_again(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    """Plays a power cut of the whole site that is longer than the job's time."""
    bell = submit(ledger, timeout_s=20)
    claim(ledger, bell)
    ledger.reap(grace_s=60)
    rung: list[str] = []
    for seconds in (120, 6):
        _let_time_go_by(seconds, ledger, redis_client, bell.job_id)
        rung += ledger.reap(grace_s=60).ring
    assert rung == [bell.queue]
    assert claim(ledger, bell).attempt == 2


def _let_time_go_by(seconds: float, ledger: Ledger, redis_client: redis.Redis, job_id: str) -> None:
    """Moves the time of the reaper's last round, of the job's lease and of its deadline back."""
    redis_client.zincrby(ledger.keys.leases, -seconds, job_id)
    redis_client.incrbyfloat(ledger.keys.round, -seconds)
    redis_client.hincrbyfloat(ledger.keys.job(job_id), "deadline", -seconds)


def test_start_by_is_about_the_first_attempt(ledger: Ledger, redis_client: redis.Redis) -> None:
    bell = submit(ledger)
    claim(ledger, bell)
    _let_start_by_pass(ledger, redis_client, bell.job_id)
    ledger.release(bell.job_id, "1")
    assert claim(ledger, bell).attempt == 2


def test_the_same_request_in_another_spelling_is_the_same_request(ledger: Ledger) -> None:
    noon = datetime(2100, 1, 1, 12, tzinfo=UTC)
    one = submit(ledger, idempotency_key="s", metadata={"a": "1", "b": "2"}, start_by=noon)
    again = ledger.submit(
        Submission(
            new_job_id(),
            request(
                idempotency_key="s",
                metadata={"b": "2", "a": "1"},
                start_by=noon.astimezone(timezone(timedelta(hours=2))),
            ),
        ),
        start_by_default_s=DAY,
    )
    assert again.known_id == one.job_id


def test_models_whose_names_look_alike_have_queues_of_their_own() -> None:
    names = ["a/b", "a:b", "a--b", "a%2Fb", "default", "%64efault", None, "模型", "問題"]
    queues = {queue_name("p", name, "bulk") for name in names}
    assert len(queues) == len(names)


def test_a_queue_that_is_full_refuses_and_records_nothing(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    def put(**fields: object) -> SubmitResult:
        return ledger.submit(
            Submission(new_job_id(), request(**fields)), start_by_default_s=DAY, max_queued=2
        )

    first = put(idempotency_key="a")
    put()
    own = f"*{ledger.keys.prefix}*"  # the server has those of other tests too, which may expire
    before = sorted(redis_client.keys(own))
    with pytest.raises(errors.QueueFull, match="2 interactive jobs wait") as refused:
        put(idempotency_key="b")
    assert refused.value.retryable
    assert sorted(redis_client.keys(own)) == before
    assert put(idempotency_key="a").known_id == first.job_id  # it is there already
    put(priority="bulk")
    put(model="other/model")
    queue = queue_name(ledger.keys.prefix, None, "interactive")
    assert ledger.claim([queue], worker="w", lease_s=30, token="t").claim
    assert put(idempotency_key="b").is_new


def test_failed_jobs_are_listed_until_they_are_retried_or_purged(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    failed = []
    for n in range(3):
        bell = submit(ledger, idempotency_key=f"k{n}", max_attempts=1)
        claim(ledger, bell)
        ledger.fail(bell.job_id, "1", failure(retryable=False), delay_s=0)
        failed.append(bell.job_id)
    assert list(ledger.dead()) == failed
    ledger.purge(failed[0])
    with pytest.raises(errors.JobExpired):
        ledger.purge(failed[0])
    with pytest.raises(errors.JobExpired, match="or it was purged"):
        ledger.get(failed[0])
    assert not redis_client.exists(ledger.keys.events(failed[0]))
    ledger.retry(failed[1])
    assert list(ledger.dead()) == failed[2:]
    with pytest.raises(errors.NotRetryable):
        ledger.purge(failed[1])
    # Its idempotency key is free again.
    assert submit(ledger, idempotency_key="k0").job_id != failed[0]


def test_new_queues_do_not_keep_others_from_the_reaper(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    old = submit(ledger, model="old").queue
    redis_client.hset(ledger.keys.dispatch, mapping={old: 0, f"{old}:at": 1})
    rung: set[str] = set()
    for round_ in range(5):
        for n in range(8):
            submit(ledger, model=f"0{round_}{n}")
        rung |= set(ledger.reap(grace_s=1).ring)
    assert old in rung
