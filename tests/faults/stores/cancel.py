"""Beside the matrix: jobs are canceled while they wait, while a worker fetches and while it generates.

    python tests/faults/stores/cancel.py [--jobs 200] [--seed 1] [--json]

At the worker's default heartbeat of a second. First half of them hang in a source; then half of them
generate, at 0.2 s a step. `wrong` counts those that did not end as canceled although they had not ended
when `cancel` was called; those that had are canceled too late, and others are asked for in their place.
What is measured: from the call of `cancel` to the final state in the record, when the slot is free.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.stores.hanging_source import Hanging
from faults.tally import Tally

SLOTS = 16
SLOW = """
import time
from videoqa_worker.engine.execution.forward import ForwardPass
decode = ForwardPass.decode
def slow(*args, **more):
    time.sleep(0.2)
    return decode(*args, **more)
ForwardPass.decode = slow
"""


def run(jobs: int, seed: int) -> Tally:
    environ = {
        "VIDEOQA_PRIVATE_ADDRESSES": "true",
        "VIDEOQA_SOURCE_READ_TIMEOUT_S": "60",
        "VIDEOQA_HEARTBEAT_S": "1",
        "VIDEOQA_LEASE_S": "30",
        "VIDEOQA_SLOTS": str(SLOTS),
    }
    with Rig("cancel", seed, environ=environ, before=SLOW) as rig:
        rig.start(1)
        hanging = Hanging()
        begun = time.monotonic()
        took_s: dict[str, list[float]] = {}
        while rig.tally.jobs < jobs // 2:
            cancel_some(rig, hanging.url, took_s)
        hanging.close()
        while rig.tally.jobs < jobs:
            cancel_some(rig, rig.inputs[0], took_s)
        rig.tally.seconds = time.monotonic() - begun
        for stage, values in took_s.items():
            values.sort()
            rig.tally.notes[f"{stage}_p50_s"] = round(values[len(values) // 2], 3)
            rig.tally.notes[f"{stage}_p99_s"] = round(values[int(len(values) * 0.99)], 3)
            rig.tally.notes[f"{stage}_jobs"] = len(values)
        return rig.settle()


def cancel_some(rig: Rig, url: str, took_s: dict[str, list[float]]) -> None:
    """Cancels as many jobs that run as wait; notes the seconds by the stage in which each was."""
    ids = [
        rig.client.submit(inputs=[url], questions=[f"Describe the video. {n}"]).id
        for n in range(2 * SLOTS)
    ]
    time.sleep(rig.draw.uniform(0.5, 1.0))
    rig.draw.shuffle(ids)
    asked = {}
    for job_id in ids:
        stage, at_s = rig.client.get(job_id).stage or "queued", time.time()
        if rig.client.cancel(job_id).state == "succeeded":
            continue  # it had ended before
        asked[job_id] = stage, at_s
    for job_id, (stage, at_s) in asked.items():
        job = rig.client.wait(job_id, timeout_s=60)
        rig.tally.wrong += job.state != "canceled"
        assert job.finished_at is not None
        took_s.setdefault(stage, []).append(job.finished_at.timestamp() - at_s)
    rig.tally.jobs += len(asked)


if __name__ == "__main__":
    main(run, jobs=200, about=__doc__)
