"""Equal jobs: thousands of followers hold Redis for a short time only, and none waits for a job that waits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import redis
from support.attempts import Recorded, submit
from support.redis import read_commands

from videoqa.contract import Failure
from videoqa.jobs import Ledger, queue_name

T = TypeVar("T")
FOLLOWERS = int(os.environ.get("FOLLOWERS", "300"))
MOST_COMMANDS = 600
"""Most commands of one call: at some 1.5 us each, it holds Redis for 1 ms."""
KEY = "key"


class Fleet:
    """Workers that serve all queues, played by calls of the ledger, whose commands are counted."""

    def __init__(self, ledger: Ledger, client: redis.Redis) -> None:
        self.ledger = ledger
        self._client = client
        self._last = self._count()
        self.most_commands = 0
        self._claims = 0

    def _count(self) -> int:
        return read_commands(self._client).total()

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Makes a call, and notes how many commands the server ran for it."""
        before = self._count()
        found = function(*args, **options)
        self.most_commands = max(self.most_commands, self._count() - before)
        return found

    def claim(self, *queues: str) -> tuple[str, str] | None:
        """Returns id and token of the job whose turn it is; None: no job may begin."""
        self._claims += 1
        token = f"c{self._claims}"
        options = {"heard": queues[0], "worker": "w", "lease_s": 60, "token": token}
        claim = self.call(self.ledger.claim, queues, **options).claim
        return (claim.job_id, token) if claim else None

    def begin(self, made: Recorded) -> tuple[str, str]:
        found = self.claim(made.queue)
        assert found is not None
        assert found[0] == made.job_id
        return found

    def lead(self, held: tuple[str, str]) -> str:
        return self.call(self.ledger.lead, *held, KEY)

    def finish(self, held: tuple[str, str]) -> None:
        found = self.call(self.ledger.finish, *held, result=None, result_url="u")
        assert found in ("ok", "woken")

    def fail(self, held: tuple[str, str], *, delay_s: float | None = None) -> str:
        failure = Failure(code="x", message="x", retryable=delay_s is not None, attempt=1)
        return self.call(self.ledger.fail, *held, failure, delay_s=delay_s or 0)


def make_flight(fleet: Fleet, count: int, **fields: Any) -> tuple[tuple[str, str], list[Recorded]]:
    """Returns a running leader and its followers."""
    leader = fleet.begin(submit(fleet.ledger, **fields))
    assert fleet.lead(leader) == "ok"
    followers = [submit(fleet.ledger, **fields) for _ in range(count)]
    for made in followers:
        assert fleet.lead(fleet.begin(made)) == "follow"
    return leader, followers


def count_states(ledger: Ledger, jobs: list[Recorded]) -> Counter[str | None]:
    return Counter(ledger.get_states([made.job_id for made in jobs]))


def test_many_followers_are_released_by_and_by_and_none_is_lost(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    fleet = Fleet(ledger, redis_client)
    leader, followers = make_flight(fleet, FOLLOWERS)
    fleet.finish(leader)
    begun = []
    while held := fleet.claim(followers[0].queue):  # without a reaper's round
        begun.append(held[0])
        fleet.finish(held)  # found in the cache
    assert begun == [made.job_id for made in followers]  # first in, first out
    assert count_states(ledger, followers) == {"succeeded": FOLLOWERS}
    assert fleet.most_commands < MOST_COMMANDS, fleet.most_commands
    assert not redis_client.exists(ledger.keys.followers(KEY), ledger.keys.flight(KEY))


def test_followers_are_not_lost_with_those_that_are_canceled_or_vanish(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    fleet = Fleet(ledger, redis_client)
    leader, followers = make_flight(fleet, 230)
    for made in followers[:70]:
        ledger.cancel(made.job_id)
    for made in followers[70:140]:
        redis_client.delete(ledger.keys.job(made.job_id))
    assert fleet.fail(leader) == "failed"
    ledger.cancel(followers[140].job_id)  # the one by which the others are released
    assert [followers[0].queue] == ledger.reap(grace_s=60).ring
    first = fleet.claim(followers[0].queue)
    assert first is not None
    assert fleet.lead(first) == "ok"  # there is no answer yet
    led = 0
    while held := fleet.claim(followers[0].queue):
        assert fleet.lead(held) == "follow"
        led += 1
    assert led >= 49
    fleet.finish(first)
    while held := fleet.claim(followers[0].queue):
        fleet.finish(held)
    assert count_states(ledger, followers) == {"canceled": 71, None: 70, "succeeded": 89}


def test_an_interactive_job_asks_itself_while_its_bulk_leader_waits(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    fleet = Fleet(ledger, redis_client)
    leader, bulk = make_flight(fleet, 2, priority="bulk")
    assert fleet.fail(leader, delay_s=3600) == "retry"
    urgent, follower = submit(ledger), submit(ledger)
    held = fleet.begin(urgent)
    assert fleet.lead(held) == "ok"
    assert fleet.lead(fleet.begin(follower)) == "follow"
    assert ledger.get(bulk[0].job_id).waiting_for == f"job {urgent.job_id}, which asks the same"
    fleet.finish(held)
    queues = (follower.queue, bulk[0].queue)
    begun = [fleet.claim(*queues) for _ in range(4)]
    assert [held and held[0] for held in begun] == (
        [follower.job_id, bulk[0].job_id, bulk[1].job_id, None]
    )


def test_an_interactive_follower_asks_when_its_bulk_leader_has_to_wait(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    fleet = Fleet(ledger, redis_client)
    leader, bulk = make_flight(fleet, 1, priority="bulk")
    urgent = [submit(ledger) for _ in range(2)]
    for made in urgent:
        assert fleet.lead(fleet.begin(made)) == "follow"  # the leader runs
    ledger.release(*leader)
    held = fleet.begin(urgent[0])
    assert fleet.lead(held) == "ok"
    assert fleet.claim(urgent[1].queue) is None
    again = fleet.claim(bulk[0].queue)
    assert again is not None
    assert again[0] == leader[0]
    assert fleet.lead(again) == "follow"
    fleet.finish(held)
    rest = [fleet.claim(urgent[1].queue, bulk[0].queue) for _ in range(4)]
    assert [held and held[0] for held in rest] == (
        [urgent[1].job_id, leader[0], bulk[0].job_id, None]
    )


def test_a_follower_whose_start_by_passes_expires(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    fleet = Fleet(ledger, redis_client)
    leader, (other,) = make_flight(fleet, 1)
    late = submit(ledger, start_by=datetime.now(UTC) + timedelta(hours=1))
    assert fleet.lead(fleet.begin(late)) == "follow"
    redis_client.zadd(f"{ledger.keys.prefix}:startby", {late.job_id: 1}, xx=True)
    ledger.reap(grace_s=60)
    job = ledger.get(late.job_id)
    assert job.state == "expired"
    assert job.failure is not None
    assert job.failure.code == "start_by_passed"
    assert redis_client.zrange(ledger.keys.followers(KEY), 0, -1) == [other.job_id]
    assert ledger.get(leader[0]).state == "running"


def test_followers_whose_neighbours_and_leader_were_deleted_go_on(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    fleet = Fleet(ledger, redis_client)
    leader, followers = make_flight(fleet, 300)
    gone = [leader[0], *(made.job_id for made in followers[10:290])]
    redis_client.delete(*(ledger.keys.job(job_id) for job_id in gone))
    assert ledger.reap(grace_s=60).ring == [followers[0].queue]
    while held := fleet.claim(followers[0].queue):
        fleet.finish(held)
    assert count_states(ledger, followers) == {None: 280, "succeeded": 20}
    ledger.reap(grace_s=60)
    assert not redis_client.exists(ledger.keys.flights)


def test_a_job_asks_itself_if_the_leader_may_not_begin(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    fleet = Fleet(ledger, redis_client)
    leader, _ = make_flight(fleet, 0)
    queue = queue_name(ledger.keys.prefix, None, "interactive")
    ledger.pause(queue)
    assert fleet.fail(leader, delay_s=0) == "retry"
    bulk = submit(ledger, priority="bulk")
    held = fleet.begin(bulk)
    assert fleet.lead(held) == "ok"
    fleet.finish(held)
    ledger.resume(queue)
    ledger.reap(grace_s=60)
    again = fleet.claim(queue)
    assert again is not None
    assert again[0] == leader[0]
