"""Row 23: somebody else writes into the workers' queues.

    python tests/faults/redis/poisoned_broker.py [--jobs 2000] [--seed 1] [--json]

Beside each job comes a message of another kind (`tests/support/poison.py`): some are no bells, some have more in
them than a bell. Each tenth job has no other bell than that one. Workers drop exactly those that are no
bells, and none ends or connects again; `wrong` counts those that did, and messages that are left over.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import cast

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.poison import POISON, STILL_BELLS, Poison
from support.processes import wait_until

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa.contract import parse_request
from videoqa.jobs import Submission, new_job_id

WORKERS = 2
EVERY = 10
"""One job in so many has a broken bell alone."""
ANNOUNCE_SOON = "from videoqa_worker.service import reaper; reaper.ANNOUNCE_EVERY_S = 0.5"
STOPPED = ("Celery gave up", "Connection to broker lost", "Unrecoverable error")


def run(jobs: int, seed: int) -> Tally:
    kinds = [*POISON, *STILL_BELLS]
    dropped = 0
    with (
        Rig("23 poisoned broker", seed, before=ANNOUNCE_SOON) as rig,
        Poison(rig.settings) as poison,
    ):
        rig.start(WORKERS)
        begun = time.monotonic()
        for number in range(jobs):
            if number % len(kinds) == 0:
                rig.draw.shuffle(kinds)
            kind = kinds[number % len(kinds)]
            queue = _record(rig, number)
            poison.put((POISON | STILL_BELLS)[kind], queue)
            dropped += kind in POISON
        rig.drain()
        rig.tally.seconds = time.monotonic() - begun
        wait_until(lambda: _count_left(rig) == 0, within_s=30)

        def count_dropped() -> int:
            return sum(info.messages_dropped for info in rig.client.workers())

        wait_until(lambda: count_dropped() >= dropped, within_s=60)
        rig.tally.wrong += count_dropped() != dropped
        rig.tally.wrong += sum(not worker.running() for worker in rig.workers)
        logs = "".join(worker.log_path.read_text() for worker in rig.workers)
        rig.tally.wrong += sum(logs.count(word) for word in STOPPED)
        rig.tally.notes |= {
            "kinds": len(kinds),
            "dropped": dropped,
            "told": logs.count("is no bell"),
        }
        return rig.settle()


def _record(rig: Rig, number: int) -> str:
    """Submits a job, each tenth without ringing for it; returns its queue."""
    queue = f"faults.default.{rig.request(number)['priority']}"
    if number % EVERY:
        rig.submit(1)
        return queue
    submission = Submission(new_job_id(), parse_request(rig.request(number)))
    rig.ledger.submit(submission, start_by_default_s=3600)
    rig.acknowledged[submission.job_id] = number
    rig.tally.jobs += 1
    return queue


def _count_left(rig: Rig) -> int:
    """Counts the messages in the broker."""
    queues = cast(list[str], rig.plain.keys("faults.default.*"))
    return sum(cast(int, rig.plain.llen(queue)) for queue in queues)


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
