"""Row 13: the decoding process is killed with SIGKILL, as by a crash or for want of memory, each 0.3 to 0.9 s.

    python tests/faults/workers/kill_decoders.py [--jobs 5000] [--seed 1] [--json]

One kill or more for each ten jobs, the next one when a job has ended since: on a slow machine a process takes
longer to start than the pause. The workers live on, a job may lose any number of processes, and the model is never
asked twice: decoding comes before it.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2


def run(jobs: int, seed: int) -> Tally:
    with Rig("13 decoder kill -9", seed, per_fault=10) as rig:
        rig.start(WORKERS)
        pids = [worker.pid for worker in rig.workers]
        ended = -1
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(rig.draw.uniform(0.3, 0.9))
                if rig.count_ended() <= ended:
                    continue
                with suppress(psutil.NoSuchProcess):
                    children = psutil.Process(rig.draw.choice(pids)).children()
                    if children:
                        rig.draw.choice(children).kill()
                        rig.tally.kills += 1
                        ended = rig.count_ended()
        rig.tally.wrong += sum(not worker.running() for worker in rig.workers)
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
