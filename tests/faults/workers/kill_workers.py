"""Row 1: workers are killed with SIGKILL at random times; fifty jobs come with each kill.

python tests/faults/workers/kill_workers.py [--jobs 10000] [--seed 1] [--json]

With an even seed workers run one job at a time: a kill costs one run of the model at most.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2
PER_KILL = 50


def run(jobs: int, seed: int) -> Tally:
    name, environ = "1 worker kill -9", {}
    if seed % 2 == 0:
        name, environ = f"{name}, one job at a time", {"VIDEOQA_SLOTS": "1"}
    with Rig(name, seed, environ=environ, per_fault=PER_KILL) as rig:
        rig.start(WORKERS)
        with rig.submitting(jobs) as going:
            while going():
                rig.let_work(0.1, 1.0)
                victim = rig.draw.choice(rig.workers)
                rig.kill(victim)
                rig.replace(victim)
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=10_000, about=__doc__)
