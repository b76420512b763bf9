"""Row 3: workers are stopped with SIGTERM and replaced, one after the other, while jobs come in.

    python tests/faults/workers/rolling_restart.py [--jobs 5000] [--seed 1] [--json]

Nothing may run twice: jobs take far less than the grace. One restart for each 25 jobs.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2
GRACE_S = 30.0


def run(jobs: int, seed: int) -> Tally:
    with Rig("3 rolling SIGTERM", seed, per_fault=25) as rig:
        rig.start(WORKERS)
        late = held = 0
        with rig.submitting(jobs) as going:
            while going():
                old = rig.workers[0]
                rig.spawn()
                rig.wait_ready(WORKERS + 1)
                rig.tally.kills += 1  # and the next jobs come
                time.sleep(rig.draw.uniform(0.1, 0.6))
                held += len(rig.held_by(old))
                old.signal(signal.SIGTERM)
                late += not old.ends_within(GRACE_S)
                rig.workers.remove(old)
        rig.tally.notes |= {"ended_late": late, "held_at_sigterm": held}
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
