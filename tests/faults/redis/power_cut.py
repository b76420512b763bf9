"""Row 5: the host of Redis loses power: the server is killed, and its log ends at a random byte.

    python tests/faults/redis/power_cut.py [--jobs 4000] [--seed 1] [--json]

An odd seed writes the log with `appendfsync everysec`, an even one with `always`. No power is cut here;
what a disk may lose is cut off instead: any number of bytes after those that the server had told somebody
are safe. With `always` each answer says so, with `everysec` an answer to WAITAOF does. `lost` counts what
`always` lost; what `everysec` lost is counted by its age, from the acknowledgement to the cut, and not in
`lost` up to 2 s (the server's own promise is one second, and one more while the disk is slow).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import redis

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa.jobs import Submission, SubmitResult

EVERYSEC_S = 2.0


def run(jobs: int, seed: int) -> Tally:
    policy = "everysec" if seed % 2 else "always"
    with Rig(f"5 power cut, {policy}", seed, redis_config=f"appendfsync {policy}\n") as rig:
        rig.start(2)
        acknowledged_s = note_acknowledgements(rig)
        torn_bytes: list[int] = []
        lost_s: dict[str, float] = {}
        with safe_marks(rig) as safe, rig.submitting(jobs) as going:
            while going():
                time.sleep(rig.draw.uniform(0.5, 1.5))
                rig.redis.kill()
                cut_s = time.monotonic()
                time.sleep(0.2)  # answers that are on their way are heard
                known = {job_id: at_s for job_id, at_s in acknowledged_s.items() if at_s < cut_s}
                sure = [*known] if policy == "always" else []
                torn_bytes.append(cut(rig, sure, safe[-1]))
                rig.tally.kills += 1
                rig.restart_redis()
                gone = [job_id for job_id in known if not there(rig, job_id)]
                rig.gone.update(gone)
                rig.look_again()
                lost_s |= {job_id: cut_s - known[job_id] for job_id in gone}
                for job_id in known:  # what is old is safe, and need not be asked for again
                    acknowledged_s.pop(job_id)
        rig.tally.held = jobs  # an attempt whose end was cut off runs again
        rig.tally.notes |= {
            "torn_bytes": sum(torn_bytes),
            "cut_off": len(lost_s),
            "oldest_cut_off_s": round(max(lost_s.values(), default=0.0), 2),
        }
        promised_s = EVERYSEC_S if policy == "everysec" else -1.0
        rig.tally.lost += sum(age_s > promised_s for age_s in lost_s.values())
        return rig.settle()


def note_acknowledgements(rig: Rig) -> dict[str, float]:
    """Job id -> when its record was acknowledged, from now on."""
    at_s: dict[str, float] = {}
    ledger = rig.client._backend.ledger
    submit = ledger.submit

    def noting(submission: Submission, **options: Any) -> SubmitResult:
        made = submit(submission, **options)
        at_s[submission.job_id] = time.monotonic()
        return made

    ledger.submit = noting  # type: ignore[method-assign]
    return at_s


@contextmanager
def safe_marks(rig: Rig) -> Iterator[list[str]]:
    """Marks of which the server said that they are on its disk, the last at the end."""
    safe = [""]
    stop = threading.Event()

    def run() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            mark = f"mark-{number:08d}."
            try:
                with rig.plain.client() as one:
                    one.set("faults:mark", mark)
                    if one.execute_command("WAITAOF", 1, 0, 3000)[0] >= 1:
                        safe.append(mark)
            except redis.exceptions.RedisError:
                stop.wait(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield safe
    finally:
        stop.set()
        thread.join()


def cut(rig: Rig, acknowledged: list[str], mark: str) -> int:
    """Ends the log somewhere after what is safe; returns how many bytes are gone."""
    log = max(
        (rig.folder / "redis" / "appendonlydir").glob("*.incr.aof"),
        key=lambda path: int(path.name.split(".")[-3]),
    )
    data = log.read_bytes()
    safe = [data.rfind(mark.encode()) + len(mark) + 2] if mark and mark.encode() in data else []
    for job_id in acknowledged:
        begin = data.find(f":job:{job_id}".encode())
        if begin >= 0:
            safe.append(data.index(b"EXEC\r\n", begin) + 6)
    floor = max(safe, default=0)
    end = rig.draw.randint(floor, len(data))
    with log.open("r+b") as out:
        out.truncate(end)
    return len(data) - end


def there(rig: Rig, job_id: str) -> bool:
    return bool(rig.plain.exists(rig.ledger.keys.job(job_id)))


if __name__ == "__main__":
    main(run, jobs=4_000, about=__doc__)
