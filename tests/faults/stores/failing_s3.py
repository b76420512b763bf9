"""Row 9: a fifth of all calls to S3 fails: refused, carried out and answered with an error, or never answered.

    python tests/faults/stores/failing_s3.py [--jobs 5000] [--seed 1] [--json]

Jobs have their usual three attempts.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

FAULTS = {"refused": 0.1, "late": 0.07, "silent": 0.03}


def run(jobs: int, seed: int) -> Tally:
    with Rig("9 S3 fails", seed, store=FAULTS, max_attempts=3) as rig:
        rig.start(2)
        with rig.submitting(jobs):
            pass
        rig.tally.notes["calls"] = dict(rig.store.count)
        # A result that could not be written is a reason to ask the model again: row 11.
        rig.tally.held = (
            rig.store.count["late"] + rig.store.count["silent"] + rig.store.count["refused"]
        )
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=5_000, about=__doc__)
