"""Row 8: Redis is emptied (FLUSHALL); results stay readable in object storage, and new jobs run.

python tests/faults/redis/flushed_redis.py [--jobs 1000] [--seed 1] [--json]
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
from videoqa.contract import Result


def run(jobs: int, seed: int) -> Tally:
    with Rig("8 Redis emptied", seed) as rig:
        rig.start(1)
        begun = time.monotonic()
        rig.submit(jobs)
        rig.drain()
        before = dict(rig.acknowledged)
        rig.plain.flushall()
        for job_id, number in before.items():
            stored = rig.stored(job_id)
            if stored is None:
                rig.tally.lost += 1
            else:
                answer = Result.model_validate_json(stored).answers[0].text
                rig.tally.wrong += answer != rig.expected(number)
        rig.acknowledged.clear()
        rig.submit(jobs // 10 + 1)
        rig.drain()
        rig.tally.seconds = time.monotonic() - begun
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=1_000, about=__doc__)
