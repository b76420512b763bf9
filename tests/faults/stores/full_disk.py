"""Row 12: the disk with the workers' spool and results is full, again and again.

    python tests/faults/stores/full_disk.py [--jobs 500] [--seed 1] [--json]

A tmpfs of 4 MiB; ballast fills it to the last byte for a second or two at a time. Where this user may not
mount one, the script runs itself in a user namespace (`unshare`). `files_left` counts what lies in the
spool or half written beside the results afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

SIZE_BYTES = 4 << 20


def run(jobs: int, seed: int) -> Tally:
    if os.geteuid() != 0:
        return run_in_namespace(jobs, seed)
    with Rig("12 disk full", seed, store={}, environ={"VIDEOQA_RETRY_CAP_S": "3"}) as rig:
        disk = rig.folder / "disk"
        with small_disk(disk):
            rig.put_results(disk / "results", VIDEOQA_SPOOL_DIR=str(disk / "spool"))
            rig.start(2)
            full_s = 0.0
            with rig.submitting(jobs) as going:
                while going():
                    time.sleep(rig.draw.uniform(0.3, 1.0))
                    rig.tally.notes["times_full"] = rig.tally.notes.get("times_full", 0) + 1
                    full_s += fill(disk / "ballast", rig.draw.uniform(0.5, 2.0))
            rig.tally.notes |= {
                "full_s": round(full_s, 1),
                "full_answers": sum(
                    w.log_path.read_text().count("No space left") for w in rig.workers
                ),
                "workers_that_ended": sum(not worker.running() for worker in rig.workers),
                "files_left": len(left_over(disk)),
            }
            rig.tally.lost += len(left_over(disk))
            return rig.settle()


def fill(ballast: Path, for_s: float) -> float:
    """Leaves no byte free for so long; returns it."""
    until_s = time.monotonic() + for_s
    with ballast.open("wb", buffering=0) as out:
        while time.monotonic() < until_s:  # what others remove meanwhile is taken too
            try:
                out.write(bytes(4096))
            except OSError as error:
                if error.errno != ENOSPC:
                    raise
                time.sleep(0.005)
    ballast.unlink()
    return for_s


def left_over(disk: Path) -> list[Path]:
    spooled = [path for path in (disk / "spool").glob("*/*") if path.name != ".lock"]
    return [*spooled, *(disk / "results").glob(".*")]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "videoqa-faults", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def run_in_namespace(jobs: int, seed: int) -> Tally:
    order = [sys.executable, __file__, "--jobs", str(jobs), "--seed", str(seed), "--json"]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *order],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        raise PermissionError(f"no tmpfs can be mounted here: {done.stderr}")
    found = json.loads(done.stdout)
    tally = Tally(found["row"])
    for name in ("jobs", "kills", "held", "lost", "wrong", "conflict", "stuck", "extra_runs"):
        setattr(tally, name, found.pop(name))
    with suppress(KeyError):
        tally.seconds = found.pop("seconds")
    tally.notes = found
    return tally


if __name__ == "__main__":
    main(run, jobs=500, about=__doc__)
