"""Row 29: Redis is killed and started again, every 1 to 3 s, under 500 listeners to the events of as many jobs.

    python tests/faults/gateway/redis_under_listeners.py [--jobs 500] [--seed 1] [--json]

One gateway and two workers. Each listener has a connection of its own, and resumes by `Last-Event-ID`. In the end it
must have seen each event of its job's stream once, in their order.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.processes import wait_until

from faults.gateway.gateways import Gateway, Listeners, count_gaps
from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2


def run(jobs: int, seed: int) -> Tally:
    row = "29 Redis kill -9 under listeners"
    config = "appendfsync always\n"
    with Rig(row, seed, redis_config=config, in_flight=jobs) as rig, Gateway(rig) as gateway:
        rig.start(WORKERS)
        rig.client.pause()
        rig.submit(jobs)
        with Listeners(gateway) as listeners:
            listeners.follow(list(rig.acknowledged))
            wait_until(lambda: all(listeners.seen.values()), within_s=60)
            rig.client.resume()
            while rig.open_jobs():
                time.sleep(rig.draw.uniform(0.5, 1.5))
                rig.redis.kill()
                rig.tally.kills += 1
                time.sleep(rig.draw.uniform(0.1, 1.5))
                rig.restart_redis()
            rig.drain()
            wait_until(lambda: not listeners.waiting, within_s=60)
            gaps = dict(count_gaps(rig, listeners))
            rig.tally.lost += len(gaps)
            rig.tally.notes |= {
                "events": sum(map(len, listeners.seen.values())),
                "reconnects": listeners.reconnects,
            }
            if gaps:
                rig.tally.notes["gaps"] = list(gaps.items())[:3]
        rig.tally.held = rig.tally.kills * jobs  # a worker may ask again what it held
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=500, about=__doc__)
