"""Row 15, of the engine: jobs that kill their worker, or break its GPU, among good ones.

    python tests/faults/workers/killers.py [--jobs 2000] [--seed 1] [--json]

One job in fifty ends the process, at the moment when the engine takes it in: by SIGKILL, as a driver or
the kernel would, or by what torch raises for a broken device. Each such job fails after its three attempts.
A good job has three too, and is answered: a neighbour costs it one attempt at most, its neighbour's first.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

WORKERS = 2
EVERY = 50
ATTEMPTS = 3
KILLS, BREAKS = 61, 62
"""`max_new_tokens` of the jobs that do it."""
KILLER = f"""
import os, signal, torch
from videoqa_worker.engine.execution import continuous
plain = continuous.begin_prefill
def begin_prefill(model, cache, pending, *args, **more):
    if pending.request.generation.max_new_tokens == {KILLS}:
        os.kill(os.getpid(), signal.SIGKILL)
    if pending.request.generation.max_new_tokens == {BREAKS}:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
    return plain(model, cache, pending, *args, **more)
continuous.begin_prefill = begin_prefill
"""


class Killers(Rig):
    """One job in `EVERY` is a killer."""

    def request(self, number: int) -> dict[str, Any]:
        request = super().request(number)
        if is_killer(number):
            tokens = (KILLS, BREAKS)[number // EVERY % 2]
            request |= {"generation": {"max_new_tokens": tokens}}
        return request


def is_killer(number: int) -> bool:
    return number % EVERY == EVERY // 5


def run(jobs: int, seed: int) -> Tally:
    with Killers("15 killers", seed, before=KILLER, max_attempts=ATTEMPTS) as rig:
        rig.start(WORKERS)
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(0.1)
                rig.replace_ended()
        killers = [job for job, number in rig.acknowledged.items() if is_killer(number)]
        rig.gone.update(killers)
        ends = [rig.client.get(job) for job in killers]
        rig.tally.stuck += sum(not job.final for job in ends)
        rig.tally.wrong += sum(
            job.failure is None
            or job.failure.code not in ("worker_lost", "engine_stopped")
            or job.attempt != job.max_attempts
            for job in ends
        )
        rig.tally.notes["killers"] = len(killers)
        rig.tally.held = jobs  # their neighbours' questions were half answered
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
