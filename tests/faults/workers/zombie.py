"""Row 18: a worker stands still (SIGSTOP) until its jobs run elsewhere, then goes on (SIGCONT).

    python tests/faults/workers/zombie.py [--jobs 3000] [--seed 1] [--json]

What it then writes comes too late: it must be refused, and its jobs have one result. One stop for
each 30 jobs.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import LEASE_S, Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2


def run(jobs: int, seed: int) -> Tally:
    with Rig("18 zombie worker", seed, per_fault=30) as rig:
        rig.start(WORKERS)
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(rig.draw.uniform(0.1, 0.6))
                zombie = rig.draw.choice(rig.workers)
                zombie.signal(signal.SIGSTOP)
                time.sleep(0.1)  # what it said before is heard
                held = rig.held_by(zombie)
                rig.tally.held += len(held)
                time.sleep(LEASE_S + rig.draw.uniform(1.0, 2.0))
                zombie.signal(signal.SIGCONT)
                rig.tally.kills += 1  # and the next jobs come, for both
        logs = [worker.log_path.read_text() for worker in rig.workers]
        refused = sum(log.count("is no longer this worker's") for log in logs)
        rig.tally.notes["late_writes_refused"] = refused
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=3_000, about=__doc__)
