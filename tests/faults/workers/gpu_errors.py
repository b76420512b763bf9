"""Row 14: the GPU runs out of memory in some decode steps, and is broken for good in others.

    python tests/faults/workers/gpu_errors.py [--jobs 4000] [--seed 1] [--json]

No GPU is here to break: the model's decoding raises what torch would raise. Memory: the engine goes on
with smaller batches. A sticky error: the worker ends with its own status and is started again.
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

BREAKS = """
import os, random, torch
from videoqa_worker.engine.execution.forward import ForwardPass
answered = ForwardPass.decode
draw = random.Random(os.environ["FAULTS_SEED"])
steps = 0
def decode(*args, **more):
    global steps
    steps += 1
    drawn = draw.random() if steps > {warm_up} else 1
    if drawn < {memory}:
        open(os.environ["FAULTS"], "a").write("m")
        raise torch.OutOfMemoryError("CUDA out of memory.")
    if drawn < {memory} + {sticky}:
        open(os.environ["FAULTS"], "a").write("s")
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
    return answered(*args, **more)
ForwardPass.decode = decode
"""
MEMORY, STICKY = 0.02, 0.01
"""Shares of the decode steps."""
WARM_UP = 20
"""Steps at the start that are sound."""


def run(jobs: int, seed: int) -> Tally:
    with Rig("14 GPU errors", seed) as rig:
        rig.start(2)
        faults = rig.folder / "faults"
        faults.touch()
        rig.environ["FAULTS"] = str(faults)
        rig.before = BREAKS.format(memory=MEMORY, sticky=STICKY, warm_up=WARM_UP)
        for worker in list(rig.workers):  # those that gave the expected answers are sound
            worker.kill_group()
            rig.replace(worker)
        rig.wait_ready(2)
        with rig.submitting(jobs) as going:
            while going():
                time.sleep(0.1)
                rig.replace_ended()
        drawn = faults.read_text()
        rig.tally.notes |= {"out_of_memory": drawn.count("m"), "sticky": drawn.count("s")}
        rig.tally.held = jobs  # a step that broke had its rows' questions half answered
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=4_000, about=__doc__)
