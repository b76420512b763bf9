"""The life of a run on a primary with replicas: fail over again and again, count what is gone, go on."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.processes import wait_until

from faults.rig import Rig
from videoqa.contract import FINAL_STATES
from videoqa_worker.embedded.redis_server import RedisServer

__all__ = ["run_failovers"]


def run_failovers(
    rig: Rig,
    jobs: int,
    break_primary: Callable[[RedisServer], None],
    mend: Callable[[RedisServer, RedisServer], None],
    *,
    per_fault: int,
    counts_as_lost: bool,
) -> None:
    """Submits jobs, and breaks one primary after the other while they come.

    Arguments:
        break_primary: called with the primary of now.
        mend: called with the old and the new primary, to make the old one a replica.
        per_fault: jobs that are submitted at each fault, as the rig has it.
        counts_as_lost: acknowledged jobs that the new primary does not have break the row's promise.
    """
    back_s: list[float] = []
    gone: dict[str, float] = {}
    with rig.submitting(jobs) as going:
        while going():
            begin = len(rig.acknowledged) + int(per_fault * rig.draw.uniform(0.2, 0.8))
            wait_until(lambda begin=begin: len(rig.acknowledged) >= begin or not going())
            waiting = rig.open_jobs()
            old, begun_s = rig.redis, time.monotonic()
            break_primary(old)
            rig.redis = wait_until(lambda old=old: rig.replicated.find_primary(besides=old))
            promoted_s = time.monotonic()
            # Half of the old ones are back before the Sentinels have told of the promotion.
            is_back_early = rig.draw.random() < 0.5
            if is_back_early:
                mend(old, rig.redis)
            if until_one_is_final(rig, waiting):
                back_s.append(time.monotonic() - begun_s)
            if not is_back_early:
                mend(old, rig.redis)
            # Until the old primary is a replica it may go on acknowledging, and so losing, jobs.
            wait_until(lambda: rig.replicated.is_whole() or not going())
            rig.look_again()
            for job_id in find_gone(rig) - gone.keys():
                gone[job_id] = rig.acknowledged_s[job_id] - promoted_s
            rig.gone |= gone.keys()
            rig.tally.kills += 1  # and the next jobs come
    rig.tally.held = jobs  # an attempt whose end was not replicated runs again
    after_s = [late_s for late_s in gone.values() if late_s > 0]
    rig.tally.notes |= {
        "not_replicated": len(gone),
        "acknowledged_after_a_promotion": len(after_s),
        "latest_after_it_s": round(max(after_s, default=0.0), 2),
        "back_at_work_s": {"most": round(max(back_s, default=0.0), 2), "times": len(back_s)},
        "workers_that_ended": sum(not worker.running() for worker in rig.workers),
    }
    if counts_as_lost:
        rig.tally.lost += len(gone)


def until_one_is_final(rig: Rig, ids: list[str]) -> bool:
    """Waits until one of these jobs is final; returns False if the new primary has none of them."""
    begun_s = time.monotonic()
    while any(states := rig.states(ids)):
        if any(state in FINAL_STATES for state in states):
            return True
        assert time.monotonic() < begun_s + 60, [rig.client.get(job_id) for job_id in ids]
        time.sleep(0.05)
    return False


def find_gone(rig: Rig) -> set[str]:
    """Returns the acknowledged jobs of which the primary of now has no record."""
    ids = list(rig.acknowledged)
    return {job_id for job_id, state in zip(ids, rig.states(ids), strict=True) if state is None}
