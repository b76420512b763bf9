"""Row 25: the primary dies, or stands still, and three Sentinels make its replica the primary.

    python tests/faults/redis/sentinels.py [--jobs 5000] [--seed 1] [--json]

With an odd seed it is killed, with an even one it is frozen, and wakes up as a primary of the past. What a
primary acknowledged and had not sent to its replica yet is lost with it: such jobs are counted, and not in
`lost`; row 26 waits for a replica and loses none.
"""

from __future__ import annotations

import os
import signal
import sys
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
    return run_kind("25 primary", jobs, seed, kills=seed % 2 == 1)


def run_kind(row: str, jobs: int, seed: int, *, kills: bool, wait_replicas: int = 0) -> Tally:
    """Runs the row with primaries that are killed, or else frozen."""
    name = f"{row} {'killed' if kills else 'frozen'}"
    replicated = {"sentinels": 3, "down_after_ms": 1000}
    per_fault = min(jobs // 2, 100)
    with Rig(
        name, seed, replicated=replicated, per_fault=per_fault, wait_replicas=wait_replicas
    ) as rig:
        rig.start(WORKERS)

        def break_primary(old: RedisServer) -> None:
            if kills:
                old.kill()
            else:
                os.kill(old.pid, signal.SIGSTOP)

        def mend(old: RedisServer, new: RedisServer) -> None:
            if kills:
                rig.replicated.restart(old, follow=new)
            else:
                os.kill(old.pid, signal.SIGCONT)

        run_failovers(
            rig,
            jobs,
            break_primary,
            mend,
            per_fault=per_fault,
            counts_as_lost=wait_replicas > 0,
        )
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
