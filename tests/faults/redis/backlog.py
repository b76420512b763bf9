"""Row 20: a backlog, with producers and a reaper and no worker: what a job costs Redis, and that no bell is rung again.

python tests/faults/redis/backlog.py [--jobs 100000] [--seed 1] [--json]
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
from videoqa.broker import make_celery
from videoqa_worker.service.reaper import Reaper


def run(jobs: int, seed: int) -> Tally:
    with Rig("20 backlog", seed) as rig:
        begun = time.monotonic()
        before = rig.memory_bytes()
        for number in range(jobs):
            rig.acknowledged[rig.client.submit(rig.request(number)).id] = number
        submitted_s = time.monotonic() - begun
        used = rig.memory_bytes() - before
        request = rig.request_bytes()
        app = make_celery(rig.settings)
        reaper = Reaper(rig.ledger, app, rig.describe, every_s=1e-6, grace_s=0.0)
        rung = sum(reaper.reap() for _ in range(20))
        app.close()
        tally = rig.tally
        tally.jobs, tally.seconds = jobs, time.monotonic() - begun
        tally.lost = jobs - rig.queued()
        tally.conflict = rung
        tally.notes |= {
            "rung_again": rung,
            "bytes_a_job_beyond_the_request": round(used / jobs - request),
            "submits_per_s": round(jobs / submitted_s),
        }
        return tally


if __name__ == "__main__":
    main(run, jobs=100_000, about=__doc__)
