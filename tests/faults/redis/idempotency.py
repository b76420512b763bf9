"""Row 21: 64 threads submit at the same time with the same keys; each key makes one job.

    python tests/faults/redis/idempotency.py [--jobs 1000] [--seed 1] [--json]

No worker runs. `lost` counts keys without a job, `conflict` keys with more than one, or whose second
body was taken.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa import errors

THREADS = 64


def run(jobs: int, seed: int) -> Tally:
    with Rig("21 idempotency race", seed) as rig:
        begun = time.monotonic()
        together = Barrier(THREADS)

        def submit(thread: int) -> list[str]:
            together.wait()
            return [rig.client.submit(rig.request(number)).id for number in range(jobs)]

        with ThreadPoolExecutor(THREADS) as threads:
            found = list(threads.map(submit, range(THREADS)))
        tally = rig.tally
        for number in range(jobs):
            ids = {of_thread[number] for of_thread in found}
            tally.conflict += len(ids) > 1
            tally.lost += not ids
            try:
                rig.client.submit(rig.request(number) | {"questions": ["Another one?"]})
                tally.conflict += 1
            except errors.IdempotencyConflict:
                pass
        tally.conflict += rig.queued() != jobs
        tally.jobs, tally.seconds = jobs, time.monotonic() - begun
        tally.notes["submits"] = jobs * THREADS
        return tally


if __name__ == "__main__":
    main(run, jobs=1_000, about=__doc__)
