"""Row 10: a tenth of what S3 answers to reads is cut off, cut off without a length, or has a wrong byte.

python tests/faults/stores/lying_s3.py [--jobs 2000] [--seed 1] [--json]
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

FAULTS = {"short": 0.04, "unlimited": 0.03, "flipped": 0.03}


def run(jobs: int, seed: int) -> Tally:
    with Rig("10 S3 lies", seed, store=FAULTS, max_attempts=3) as rig:
        rig.start(2)
        with rig.submitting(jobs):
            pass
        rig.tally.notes["calls"] = dict(rig.store.count)
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
