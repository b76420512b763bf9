"""Row 24: a primary hands over to its replica (FAILOVER), behind one name, under load.

    python tests/faults/redis/failover.py [--jobs 5000] [--seed 1] [--json]

Open connections stay at the old primary, which is a replica then; the name leads to the new one some time
later. FAILOVER waits for the replica, so nothing may be lost.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.redis.primaries import run_failovers
from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa_worker.embedded.redis_server import RedisServer

WORKERS = 2


def run(jobs: int, seed: int) -> Tally:
    per_fault = min(jobs // 2, 100)
    with Rig("24 FAILOVER", seed, replicated={}, per_fault=per_fault) as rig:
        rig.start(WORKERS)

        def hand_over(old: RedisServer) -> None:
            new = rig.replicated.fail_over(old)
            time.sleep(rig.draw.uniform(0, 1))
            rig.wire.to = new.port

        run_failovers(
            rig,
            jobs,
            hand_over,
            lambda old, new: None,
            per_fault=per_fault,
            counts_as_lost=True,
        )
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
