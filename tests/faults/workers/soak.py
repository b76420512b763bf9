"""Row 22: everything at random, for long, and what the workers that live through it take.

    python tests/faults/workers/soak.py [--jobs 30000] [--seed 1] [--json]

Two workers; one is killed or stands still now and then, the other, the elder, is not. Redis is killed, stands
still, is slow and resets connections; S3 fails and lies; decoders are killed. The elder's memory and
descriptors are counted when a tenth of the jobs are done and at the end, each without jobs; in a long run
growth above 5 %, and each file that is left in a spool, counts as lost.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil
from support.forking.workers import ForkedWorker

from faults.rig import LEASE_S, Rig
from faults.script import main
from faults.tally import Tally

GROWTH = 1.05
MORE_DESCRIPTORS = 8
"""Pools of connections grow to their size."""
COLLECT = """
import gc, signal
signal.signal(signal.SIGUSR2, lambda *_: gc.collect())
"""
LONG = 5_000
"""Jobs of a run whose first tenth has seen all that makes a process grow to its size."""


def run(jobs: int, seed: int) -> Tally:
    with Rig("22 soak", seed, store={}, wire={"delay_s": 0.0}, before=COLLECT) as rig:
        rig.environ["VIDEOQA_SPOOL_DIR"] = str(rig.folder / "spool")
        rig.start(2)
        elder = rig.workers[0]
        happened: Counter[str] = Counter()
        trouble(rig, elder, jobs // 10, happened)
        before = taken(elder)
        trouble(rig, elder, jobs - jobs // 10, happened)
        after = taken(elder)
        rig.spawn()  # what killed workers left in the spool, the next to start removes
        rig.wait_ready(3)
        rig.tally.notes |= {
            "faults": dict(happened),
            "memory_mib": [round(found[0] / 2**20, 1) for found in (before, after)],
            "descriptors": [found[1] for found in (before, after)],
            "threads": [found[2] for found in (before, after)],
            "files_left": len(left_over(rig)),
            "elder_lives": elder.running(),
        }
        rig.tally.held = jobs  # connections are reset at any time: anything may run again
        tally = rig.settle()
        tally.lost += len(left_over(rig))
        if jobs >= LONG:
            tally.lost += after[0] > before[0] * GROWTH
            tally.lost += after[1] > before[1] + MORE_DESCRIPTORS
        return tally


def trouble(rig: Rig, elder: ForkedWorker, jobs: int, happened: Counter[str]) -> None:
    """Submits so many jobs, under faults until the last is final."""
    faults = [
        kill_worker,
        freeze_worker,
        kill_redis,
        freeze_redis,
        bad_wire,
        bad_store,
        kill_decoder,
    ]
    seconds = rig.tally.seconds
    with rig.submitting(jobs) as going:
        while going():
            time.sleep(rig.draw.uniform(0.5, 2.0))
            fault: Callable[[Rig, ForkedWorker], None] = rig.draw.choice(faults)
            happened[fault.__name__] += 1
            fault(rig, elder)
    rig.tally.seconds += seconds


def kill_worker(rig: Rig, elder: ForkedWorker) -> None:
    victim = younger(rig, elder)
    rig.kill(victim)
    rig.replace(victim)


def freeze_worker(rig: Rig, elder: ForkedWorker) -> None:
    victim = younger(rig, elder)
    victim.signal(signal.SIGSTOP)
    time.sleep(LEASE_S + rig.draw.uniform(-1, 1))
    victim.signal(signal.SIGCONT)


def kill_redis(rig: Rig, elder: ForkedWorker) -> None:
    rig.redis.kill()
    time.sleep(rig.draw.uniform(0.1, 1.5))
    rig.restart_redis()


def freeze_redis(rig: Rig, elder: ForkedWorker) -> None:
    rig.redis.process.send_signal(signal.SIGSTOP)
    time.sleep(rig.draw.uniform(0.5, 6))
    rig.redis.process.send_signal(signal.SIGCONT)


def bad_wire(rig: Rig, elder: ForkedWorker) -> None:
    rig.wire.delay_s, rig.wire.resets = 0.02, 0.02
    time.sleep(rig.draw.uniform(1, 3))
    rig.wire.delay_s, rig.wire.resets = 0.0, 0.0


def bad_store(rig: Rig, elder: ForkedWorker) -> None:
    rig.store.faults = {"refused": 0.1, "late": 0.1, "silent": 0.02, "short": 0.1, "flipped": 0.1}
    time.sleep(rig.draw.uniform(1, 3))
    rig.store.faults = {}


def kill_decoder(rig: Rig, elder: ForkedWorker) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(elder.pid).children():
            child.kill()


def younger(rig: Rig, elder: ForkedWorker) -> ForkedWorker:
    return next(worker for worker in rig.workers if worker is not elder)


def taken(worker: ForkedWorker) -> tuple[int, int, int]:
    """Returns resident bytes, descriptors and threads, a moment after the last job and a collection.

    Connections that broke and frames of jobs that failed are in cycles until then.
    """
    time.sleep(2)
    worker.signal(signal.SIGUSR2)
    time.sleep(2)
    process = psutil.Process(worker.pid)
    return process.memory_info().rss, process.num_fds(), process.num_threads()


def left_over(rig: Rig) -> list[Path]:
    return [path for path in (rig.folder / "spool").glob("*/*") if path.name != ".lock"]


if __name__ == "__main__":
    main(run, jobs=30_000, about=__doc__)
