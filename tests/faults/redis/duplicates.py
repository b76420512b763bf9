"""Row 19: each job's bell is rung six times, at once and later.

python tests/faults/redis/duplicates.py [--jobs 2000] [--seed 1] [--json]
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
from videoqa.broker import make_celery, ring
from videoqa.contract import parse_request
from videoqa.jobs import Bell, new_job_id

WORKERS = 2
MORE = 5


def run(jobs: int, seed: int) -> Tally:
    with Rig("19 duplicate deliveries", seed) as rig:
        rig.start(WORKERS)
        begun = time.monotonic()
        app = make_celery(rig.settings)
        rung: list[Bell] = []
        for number in range(jobs):
            result = rig.ledger.submit(
                new_job_id(), parse_request(rig.request(number)), start_by_default_s=3600
            )
            bell = result.bell
            assert bell is not None
            rig.acknowledged[bell.job_id] = number
            rung.append(bell)
            for again in [bell] * 3 + [rig.draw.choice(rung) for _ in range(MORE - 2)]:
                ring(app, again)
            if number % 64 == 63:
                rig.drain()
        rig.drain()
        app.close()
        rig.tally.jobs = jobs
        rig.tally.seconds = time.monotonic() - begun
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
