"""Row 28: the gateway is killed with SIGKILL and started again every 1 to 3 s, while an app submits and listens.

    python tests/faults/gateway/kill_gateways.py [--jobs 2000] [--seed 1] [--json]

All jobs are submitted by a `Client` of the gateway, whose repeated requests must not make a second job. A listener for
each job has a connection of its own, and resumes by `Last-Event-ID`: in the end it must have seen each event of
its job's stream once, in their order. `duplicates` counts jobs that no submit was answered with.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.processes import wait_until

from faults.gateway.gateways import Gateway, Listeners, count_gaps
from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa.client import Client

WORKERS = 2


def run(jobs: int, seed: int) -> Tally:
    with Rig("28 gateway kill -9", seed) as rig, Gateway(rig) as gateway:
        rig.start(WORKERS)
        before = set(rig.list_jobs())
        direct = rig.client
        with (
            Client(gateway.url, api_key=gateway.key) as client,
            Listeners(gateway) as listeners,
        ):
            rig.client = client
            over = threading.Event()
            beside = threading.Thread(target=follow_new_jobs, args=(rig, listeners, over))
            beside.start()
            with rig.submitting(jobs) as going:
                while going():
                    time.sleep(rig.draw.uniform(1, 3))
                    gateway.kill()
                    rig.tally.kills += 1
                    time.sleep(rig.draw.uniform(0, 0.5))
                    gateway.start()
            over.set()
            beside.join()
            wait_until(lambda: not listeners.waiting, within_s=60)
            gaps = dict(count_gaps(rig, listeners))
            rig.tally.lost += len(gaps)
            duplicates = set(rig.list_jobs()) - before - set(rig.acknowledged)
            rig.tally.conflict += len(duplicates)
            rig.tally.notes |= {
                "events": sum(map(len, listeners.seen.values())),
                "reconnects": listeners.reconnects,
                "duplicates": len(duplicates),
            }
            if gaps:
                rig.tally.notes["gaps"] = list(gaps.items())[:3]
            rig.client = direct
        return rig.settle()


def follow_new_jobs(rig: Rig, listeners: Listeners, over: threading.Event) -> None:
    """Listens to each job from its acknowledgement on."""
    while not over.wait(0.05) or len(listeners.seen) < len(rig.acknowledged):
        listeners.follow([one for one in list(rig.acknowledged) if one not in listeners.seen])


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
