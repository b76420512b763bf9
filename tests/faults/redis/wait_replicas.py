"""Row 26: row 25 with VIDEOQA_WAIT_REPLICAS=1: no acknowledged job is lost.

    python tests/faults/redis/wait_replicas.py [--jobs 5000] [--seed 1] [--json]

With an odd seed primaries are frozen, with an even one they are killed. While the only replica is away no
submit succeeds; workers go on.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.redis.sentinels import run_kind
from faults.script import main
from faults.tally import Tally


def run(jobs: int, seed: int) -> Tally:
    return run_kind(
        "26 replicas waited for, primary", jobs, seed, kills=seed % 2 == 0, wait_replicas=1
    )


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
