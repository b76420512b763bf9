"""Row 2: a worker is killed between the broker's pop of a bell and its claim.

    python tests/faults/workers/lost_bells.py [--jobs 8600] [--seed 1] [--json]

Stock Celery loses each message that this hits: nobody has it any more. One of twenty is hit, 500 at full size.
Workers have two slots, so that little else dies with them, and few jobs are in flight: a busy worker hears no bells.
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

WORKERS = 2
KILL_AT_THAT_LINE = """
import os, random, signal
from kombu.transport.virtual.base import QoS
noted = QoS.append
draw = random.Random(os.environ["FAULTS_SEED"])
def append(qos, message, delivery_tag):
    if draw.random() < 0.05:
        os.killpg(os.getpid(), signal.SIGKILL)
    return noted(qos, message, delivery_tag)
QoS.append = append
"""


def run(jobs: int, seed: int) -> Tally:
    with Rig("2 kill -9 at the pop", seed, environ={"VIDEOQA_SLOTS": "2"}, in_flight=3) as rig:
        rig.start(1)
        rig.workers.pop().kill_group()
        rig.before = KILL_AT_THAT_LINE
        for _ in range(WORKERS):
            rig.spawn()
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(0.05)
                for worker in [*rig.workers]:
                    if not worker.running():
                        rig.kill(worker)  # it is dead; what it held is counted
                        rig.replace(worker)
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=8_600, about=__doc__)
