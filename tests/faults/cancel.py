"""Beside the matrix: jobs are canceled while they wait and while a worker fetches; each frees its slot.

    python tests/faults/cancel.py [--jobs 200] [--seed 1] [--json]

Half of them hang in a source, at the worker's default heartbeat of a second. `wrong` counts those that
did not end as canceled. What is measured: from the call of `cancel` to the final state in the record.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.hanging_source import Hanging
from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

SLOTS = 16


def run(jobs: int, seed: int) -> Tally:
    environ = {
        "VIDEOQA_PRIVATE_ADDRESSES": "true",
        "VIDEOQA_SOURCE_READ_TIMEOUT_S": "60",
        "VIDEOQA_HEARTBEAT_S": "1",
        "VIDEOQA_LEASE_S": "30",
        "VIDEOQA_SLOTS": str(SLOTS),
    }
    with Rig("cancel", seed, environ=environ) as rig:
        rig.start(1)
        hanging = Hanging()
        begun = time.monotonic()
        took_s: dict[str, list[float]] = {"queued": [], "fetching": []}
        while rig.tally.jobs < jobs:
            ids = [
                rig.client.submit(inputs=[hanging.url], questions=["What?"]).id
                for _ in range(2 * SLOTS)  # as many run as wait
            ]
            time.sleep(rig.draw.uniform(0.5, 1.5))
            rig.draw.shuffle(ids)
            asked = {}
            for job_id in ids:
                kind = "fetching" if rig.client.get(job_id).state == "running" else "queued"
                asked[job_id] = kind, time.time()
                rig.client.cancel(job_id)
            for job_id, (kind, at_s) in asked.items():
                job = rig.client.wait(job_id, timeout_s=60)
                rig.tally.wrong += job.state != "canceled"
                assert job.finished_at is not None
                took_s[kind].append(job.finished_at.timestamp() - at_s)
            rig.tally.jobs += len(ids)
        hanging.close()
        rig.tally.seconds = time.monotonic() - begun
        for kind, values in took_s.items():
            values.sort()
            rig.tally.notes[f"{kind}_p50_s"] = round(values[len(values) // 2], 3)
            rig.tally.notes[f"{kind}_p99_s"] = round(values[int(len(values) * 0.99)], 3)
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=200, about=__doc__)
