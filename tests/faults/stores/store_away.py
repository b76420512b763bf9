"""Row 11: the object store goes away while jobs run, and comes back when all have been answered.

    python tests/faults/stores/store_away.py [--jobs 500] [--seed 1] [--json]

It is away for 1.2 s a job, 10 minutes at full size, or until each job has asked the model, whichever is
longer. Videos come from files, so that only results are in its way. No job may ask the model again.
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

AWAY_S = 1.2


def run(jobs: int, seed: int) -> Tally:
    with Rig(
        "11 store away", seed, store={}, environ={"VIDEOQA_RETRY_CAP_S": "5"}, in_flight=jobs
    ) as rig:
        rig.start(2)
        rig.inputs = [clip.as_uri() for clip in rig.clips]
        rig.store.away = True
        begun = time.monotonic()
        with rig.submitting(jobs):
            time.sleep(jobs * AWAY_S)
            waiting = until_answered(rig, jobs)
            rig.store.away = False
            rig.tally.notes |= {
                "away_s": round(time.monotonic() - begun, 1),
                "kept": waiting,
                "refused_calls": rig.store.count["away"],
            }
        rig.tally.held = 0
        return rig.settle()


def until_answered(rig: Rig, jobs: int) -> int:
    """Waits until every job's answers wait in its record, and counts them."""
    kept = 0
    until = time.monotonic() + 600
    while kept < jobs and time.monotonic() < until:
        time.sleep(0.2)
        with rig.plain.pipeline(transaction=False) as pipe:
            for job_id in list(rig.acknowledged):
                pipe.hexists(rig.ledger.keys.job(job_id), "kept")
            kept = sum(map(bool, pipe.execute()))
    return kept


if __name__ == "__main__":
    main(run, jobs=500, about=__doc__)
