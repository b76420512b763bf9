"""Row 4: Redis is killed with SIGKILL and started again, every 4 to 8 s.

    python tests/faults/redis/kill_redis.py [--jobs 10000] [--seed 1] [--json]

An odd seed writes its log with `appendfsync everysec`, an even one with `always`. A process that
is killed loses nothing that it has written; a host that loses power is row 5.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2


def run(jobs: int, seed: int) -> Tally:
    policy = "everysec" if seed % 2 else "always"
    with Rig(f"4 Redis kill -9, {policy}", seed, redis_config=f"appendfsync {policy}\n") as rig:
        rig.start(WORKERS)
        back_s: list[float] = []
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(rig.draw.uniform(4, 8))
                running = [job for worker in rig.workers for job in rig.held_by(worker)]
                rig.redis.kill()
                rig.tally.kills += 1
                rig.tally.held += len(running)
                time.sleep(rig.draw.uniform(0.1, 1.5))
                rig.restart_redis()
                if running:
                    back_s.append(until_a_job_ends(rig))
        rig.tally.notes["back_at_work_s"] = {
            "most": round(max(back_s, default=0.0), 2),
            "times": len(back_s),
        }
        rig.tally.notes["workers_that_ended"] = sum(not worker.running() for worker in rig.workers)
        return rig.settle()


def until_a_job_ends(rig: Rig) -> float:
    """Seconds from now until some job that is open now is final."""
    begun = time.monotonic()
    before = len(rig.open_jobs())
    finished = len(rig.acknowledged) - before
    while before and time.monotonic() - begun < 60:
        if len(rig.acknowledged) - len(rig.open_jobs()) > finished:
            break
        time.sleep(0.05)
    return time.monotonic() - begun


if __name__ == "__main__":
    main(run, jobs=10_000, about=__doc__)
