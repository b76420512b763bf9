"""Row 19: six bells are rung for each job, at once and later, more than the ledger counts.

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
from videoqa.jobs import Submission, new_job_id, queue_name

WORKERS = 2
BELLS = 6


def run(jobs: int, seed: int) -> Tally:
    with Rig("19 duplicate deliveries", seed) as rig:
        rig.start(WORKERS)
        begun = time.monotonic()
        app = make_celery(rig.settings)
        rung: list[str] = []
        for number in range(jobs):
            request = parse_request(rig.request(number))
            submission = Submission(new_job_id(), request)
            rig.ledger.submit(submission, start_by_default_s=3600)
            rig.acknowledged[submission.job_id] = number
            queue = queue_name(rig.settings.prefix, request.model, request.priority)
            rung.append(queue)
            for again in [queue] * 4 + [rig.draw.choice(rung) for _ in range(BELLS - 4)]:
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
