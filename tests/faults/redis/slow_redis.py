"""Row 6: Redis is frozen, slow, and its connections are reset.

    python tests/faults/redis/slow_redis.py [--jobs 5000] [--seed 1] [--json]

Workers reach it over a wire that delays each piece and resets some; every 20 s it stands still (SIGSTOP),
for up to 30 s in a run of full size.
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
FULL = 2_000


def run(jobs: int, seed: int) -> Tally:
    full = jobs >= FULL
    wire = {"delay_s": 0.02 if full else 0.005, "resets": 0.005}
    with Rig("6 Redis frozen, slow, reset", seed, wire=wire) as rig:
        rig.start(WORKERS)
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(20 if full else 2)
                if full and rig.draw.random() < 0.3:
                    rig.wire.delay_s = 0.5
                    time.sleep(5)
                    rig.wire.delay_s = wire["delay_s"]
                rig.tally.held += sum(len(rig.held_by(worker)) for worker in rig.workers)
                rig.redis.process.send_signal(signal.SIGSTOP)
                time.sleep(rig.draw.uniform(5, 30) if full else 4)
                rig.redis.process.send_signal(signal.SIGCONT)
                rig.tally.kills += 1
        rig.tally.notes["wire"] = dict(rig.wire.count)
        # Resets make workers lose bells and leases at any time; each may ask the model again.
        rig.tally.held += rig.wire.count["resets"]
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
