"""Row 17: the clocks of the workers' hosts jump by up to an hour, forward and back.

    python tests/faults/redis/clock_jumps.py [--jobs 5000] [--seed 1] [--json]

Each `time.time` and `datetime.now` of a worker is replaced by one that is wrong by what a file says;
C code keeps the true clock. (libfaketime would take that too, but torch hangs under it while it loads.)
Only wall clocks jump: no host turns a monotonic one back. Leases and delays are on Redis' clock, so no
job may run twice: `held` is 0.
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

JUMP_S = 3600.0
PATCH = """
import datetime, os, sys, time
true, plain = time.time, datetime.datetime
def jumped():
    with open(os.environ["CLOCK"]) as file:
        return true() + float(file.read())
class Jumped(plain):
    @classmethod
    def now(cls, tz=None):
        return plain.fromtimestamp(jumped(), tz)
for module in list(sys.modules.values()):
    for name, value in list(vars(module).items()):
        if value is true:
            setattr(module, name, jumped)
        elif value is plain and module.__name__.startswith(("videoqa", "kombu", "celery")):
            setattr(module, name, Jumped)
"""


def run(jobs: int, seed: int) -> Tally:
    with Rig("17 clock jumps", seed, before=PATCH) as rig:
        clocks = [rig.folder / f"clock-{n}" for n in range(2)]
        for clock in clocks:
            clock.write_text("0")
            rig.spawn(CLOCK=str(clock))
        rig.wait_ready(2)
        rig.learn()
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(rig.draw.uniform(0.2, 1.0))
                put(rig.draw.choice(clocks), str(rig.draw.uniform(-JUMP_S, JUMP_S)))
                rig.tally.kills += 1
        rig.tally.notes["furthest_s"] = round(furthest_s(rig))
        return rig.settle()


def put(clock: Path, text: str) -> None:
    """At once: no reader finds half of it."""
    new = clock.with_suffix(".new")
    new.write_text(text)
    new.replace(clock)


def furthest_s(rig: Rig) -> float:
    """Returns how far a worker's clock was from Redis' when it finished a job."""
    return max(
        abs(rig.client.result(job_id).finished_at - finished_at).total_seconds()
        for job_id in list(rig.acknowledged)[-500:]
        if (finished_at := rig.client.get(job_id).finished_at)
    )


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
