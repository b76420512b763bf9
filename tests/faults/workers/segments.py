"""Beside the matrix: workers are killed while they answer videos in segments; three jobs come with each kill.

    python tests/faults/workers/segments.py [--jobs 400] [--seed 1] [--json]

Twelve segments a job, each a scene of its own. `segments_again` counts those that were asked about once more:
at most eight for each job that a killed worker held, or the checkpoints are not gone on from, which counts
as wrong.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.scenes import Scene, write_clip

from faults.rig import SCENES, Rig
from faults.script import main
from faults.tally import Tally
from videoqa.contract import Result
from videoqa_worker.job.segments import AHEAD

WORKERS, FILMS, PARTS, PART_S = 2, 3, 12, 0.5
PER_KILL = 3
NOTED = """
import os, time
from videoqa_worker.job import segments
from videoqa_worker.engine.execution.forward import ForwardPass
decode, ask = ForwardPass.decode, segments.Segments._ask_about
def slow(*args, **more):
    time.sleep(0.01)
    return decode(*args, **more)
def noted(self, segment):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{self._context.control.job_id} {segment.number}\\n")
    return ask(self, segment)
ForwardPass.decode, segments.Segments._ask_about = slow, noted
"""


class Films(Rig):
    """Its jobs are about films."""

    def draw_films(self) -> None:
        self.inputs = []
        for n in range(FILMS):
            scenes = [Scene.single(*self.draw.choice(SCENES)) for _ in range(PARTS)]
            path = self.folder / f"film-{n}.mp4"
            write_clip(scenes, path, size_px=(160, 120), fps=12, duration_s=PART_S)
            self.inputs.append(path.as_uri())

    def request(self, number: int) -> dict[str, Any]:
        sampling = {"method": "segment", "segment_s": PART_S, "frames": 2}
        return super().request(number) | {"sampling": sampling}

    def said(self, result: Result) -> str:
        return "; ".join(part.text for part in result.segments)


def run(jobs: int, seed: int) -> Tally:
    with Films("segments", seed, before=NOTED, per_fault=PER_KILL) as rig:
        notes = rig.folder / "notes"
        rig.environ["NOTES"] = str(notes)
        rig.draw_films()
        rig.start(WORKERS)
        with rig.submitting(jobs) as going:
            while going() and rig.tally.kills < jobs / PER_KILL:
                rig.let_work(0.3, 1.2)
                victim = max(rig.workers, key=lambda worker: len(rig.held_by(worker)))
                rig.kill(victim)
                rig.replace(victim)
        tally = rig.settle()
        asked = Counter(notes.read_text().splitlines())
        again = sum(asked.values()) - len(asked)
        tally.notes |= {"segments": len(asked), "segments_again": again}
        tally.wrong += again > AHEAD * tally.held
        tally.lost += rig.plain.exists(*(f"faults:segments:{job}" for job in rig.acknowledged))
        return tally


if __name__ == "__main__":
    main(run, jobs=400, about=__doc__)
