"""Row 7: Redis is full (`noeviction`): submits are refused with an error that can be tried again.

    python tests/faults/redis/full_redis.py [--jobs 20000] [--seed 1] [--json]

There is room for about half of `--jobs`. Then there is room again, and all that were acknowledged are answered.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, cast

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa import errors

BYTES_A_JOB = 1_000
"""Less than one needs, so that not all find room."""


def run(jobs: int, seed: int) -> Tally:
    with Rig("7 Redis full", seed) as rig:
        rig.start(1)
        rig.workers.pop().kill_group()
        begun = time.monotonic()
        used = cast(dict[str, Any], rig.plain.info("memory"))["used_memory"]
        rig.plain.config_set("maxmemory", used + jobs * BYTES_A_JOB)
        refused: errors.VideoQAError | None = None
        for number in range(10 * jobs + 2_000):  # what others free beside it may be as much
            try:
                job = rig.client.submit(rig.request(number))
            except errors.VideoQAError as error:
                refused = error
                break
            rig.acknowledged[job.id] = number
            rig.tally.jobs += 1
        rig.tally.notes["refused"] = f"{refused.code}: {refused}" if refused else "never"
        rig.tally.wrong += refused is None or not refused.retryable
        rig.plain.config_set("maxmemory", 0)
        rig.spawn()
        rig.spawn()
        while rig.open_jobs() and time.monotonic() - begun < 1200:
            time.sleep(0.5)
        rig.tally.seconds = time.monotonic() - begun
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=20_000, about=__doc__)
