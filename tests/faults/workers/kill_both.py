"""Rows 1 and 4 together: workers are killed with SIGKILL all the time, and Redis now and then.

python tests/faults/workers/kill_both.py [--jobs 10000] [--seed 1] [--json]
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

REDIS_EVERY = 7


def run(jobs: int, seed: int) -> Tally:
    with Rig("1 and 4 workers and Redis kill -9", seed) as rig:
        rig.start(2)
        of_redis = 0
        with rig.submitting(jobs) as going:
            while going():
                rig.let_work(0.5, 1.1)
                victim = rig.draw.choice(rig.workers)
                rig.kill(victim)
                rig.replace(victim)
                if rig.tally.kills % REDIS_EVERY == 2:
                    rig.tally.held += sum(len(rig.held_by(worker)) for worker in rig.workers)
                    rig.redis.kill()
                    of_redis += 1
                    time.sleep(rig.draw.uniform(0.1, 1.5))
                    rig.restart_redis()
        rig.tally.notes["of_redis"] = of_redis
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=10_000, about=__doc__)
