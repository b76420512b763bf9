"""Row 15: hostile videos among good ones, damaged by seed in thirteen containers (`tests/fuzz`).

    python tests/faults/stores/poison.py [--jobs 2000] [--seed 1] [--json]

`--jobs`: so many hostile ones, and a good one beside each fourth. Each is answered or ends with a code of
fetching or sampling, after three attempts at most and within its deadline; no worker dies or grows.
`wrong` counts those that ended otherwise.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil
from fuzz.clips import write_clips
from fuzz.damage import damaged

from faults.rig import IN_FLIGHT, Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2
TIMEOUT_S = 60.0
MOST_GROWTH_BYTES = 64 << 20


def run(jobs: int, seed: int) -> Tally:
    # What the engine keeps grows up to its budget, and would be taken for a leak.
    environ = {"VIDEOQA_FEATURE_CACHE_BYTES": "0", "VIDEOQA_PREFIX_CACHE_BYTES": "0"}
    with Rig("15 poison", seed, max_attempts=3, environ=environ) as rig:
        rig.start(WORKERS)
        (rig.folder / "sound").mkdir()
        sound = write_clips(rig.folder / "sound")
        poison: list[str] = []
        sizes: list[int] = []
        begun = time.monotonic()
        for number in range(jobs):
            file = damaged(number, seed, sound)
            path = rig.folder / f"poison-{number}{Path(file.clip.name).suffix}"
            path.write_bytes(file.data)
            fields = {"questions": ["What is moving?"], "timeout_s": TIMEOUT_S, "max_attempts": 3}
            poison.append(rig.client.submit(inputs=[path.as_uri()], **fields).id)
            if number % 4 == 0:
                rig.submit(1)
            if number % IN_FLIGHT == IN_FLIGHT - 1:
                for job_id in poison[-IN_FLIGHT:]:
                    rig.client.wait(job_id, timeout_s=3 * TIMEOUT_S)
                sizes.append(sum(psutil.Process(w.pid).memory_info().rss for w in rig.workers))
        for job_id in poison:
            rig.client.wait(job_id, timeout_s=3 * TIMEOUT_S)
        rig.drain()
        ends: Counter[str] = Counter()
        for job_id in poison:
            job = rig.client.get(job_id)
            code = job.failure.code if job.failure else job.state
            ends[code] += 1
            stage = job.failure.stage if job.failure else None
            fine = job.state == "succeeded" or stage in ("fetching", "sampling")
            rig.tally.wrong += not fine or job.attempt > 3
        rig.tally.wrong += sum(not worker.running() for worker in rig.workers)
        tally = rig.settle()
        tally.jobs += jobs
        tally.seconds = time.monotonic() - begun
        tally.notes["ends"] = dict(ends.most_common())
        warm = sizes[len(sizes) // 4 :]
        if len(warm) > 1:
            tally.notes["growth_mib"] = round((warm[-1] - warm[0]) / 2**20, 1)
            tally.wrong += warm[-1] - warm[0] > MOST_GROWTH_BYTES
        return tally


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
