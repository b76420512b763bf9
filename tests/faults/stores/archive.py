"""Archive: `videoqa caption` over clips in S3; its producer is killed twice and a worker three times.

The same command goes on each time. Every clip has its right answer then, one line in results.jsonl,
and the model was asked no more often than the killed workers explain.

python tests/faults/stores/archive.py [--jobs 500] [--seed 1] [--json]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.forking.workers import ForkedWorker

from faults.rig import QUESTIONS, Rig
from faults.script import main
from faults.tally import Tally
from videoqa.contract import Result

WORKERS = 2
FAULTS = (
    (0.15, "worker"),
    (0.3, "producer"),
    (0.45, "worker"),
    (0.6, "producer"),
    (0.75, "worker"),
)
"""At which share of the rows what is killed."""
COMMAND = "from videoqa.cli.main import main; main()"


def run(jobs: int, seed: int) -> Tally:
    with Rig("archive", seed, store={}) as rig:
        rig.start(WORKERS)
        _fill(rig, jobs)
        begun = time.monotonic()
        producer = _caption(rig)
        # Of few jobs one may be held by each worker that dies, and the third would be its last.
        for share, what in FAULTS if jobs >= 100 else FAULTS[:-1]:
            _wait_for(rig, round(share * jobs), producer)
            if what == "worker":
                _kill_worker(rig, rig.draw.choice(rig.workers))
            else:
                producer.kill()
                producer.communicate()
                time.sleep(rig.draw.uniform(0, 1))
                producer = _caption(rig)
        told, noise = producer.communicate(timeout=600)
        rig.tally.jobs, rig.tally.seconds = jobs, time.monotonic() - begun
        last = json.loads(told or "{}")
        rig.tally.notes |= {name: last.get(name) for name in ("done", "skipped", "failed")}
        if noise:
            rig.tally.notes["stderr"] = noise[-500:]
        _settle(rig, jobs)
        return rig.tally


def _fill(rig: Rig, count: int) -> None:
    for n in range(count):
        body = rig.clips[n % len(rig.clips)].read_bytes()
        rig._s3.put_object(Bucket="faults", Key=f"archive/{n:05}.mp4", Body=body)


def _caption(rig: Rig) -> subprocess.Popen[str]:
    """The command, always the same."""
    clean = {name: text for name, text in os.environ.items() if "VIDEOQA_" not in name}
    places = {"VIDEOQA_REDIS_URL": rig.redis_url, "VIDEOQA_PREFIX": "faults"}
    args = ["caption", "s3://faults/archive/", "--question", QUESTIONS[1], "--frames", "4",
            "--output", "s3://faults/answers/", "--in-flight", "32", "--json"]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *args],
        env=clean | rig.environ | places,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _adopt(rig: Rig) -> int:
    """All rows that have a record become the rig's own jobs; returns how many of them are final."""
    for key in rig.plain.scan_iter("faults:job:*", count=1000):
        job_id = str(key).rpartition(":")[2]
        if job_id not in rig.acknowledged:
            name = json.loads(str(rig.plain.hget(key, "request"))).get("custom_id")
            if name is not None:
                rig.acknowledged[job_id] = int(name.removesuffix(".mp4"))
    return len(rig.acknowledged) - len(rig.open_jobs())


def _wait_for(rig: Rig, final: int, producer: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 300
    while _adopt(rig) < final and time.monotonic() < until and producer.poll() is None:
        time.sleep(0.05)


def _kill_worker(rig: Rig, worker: ForkedWorker) -> None:
    worker.kill_group()
    time.sleep(0.1)
    _adopt(rig)
    rig.tally.kills += 1
    rig.tally.held += len(rig.held_by(worker))
    rig.replace(worker)


def _settle(rig: Rig, count: int) -> None:
    tally = rig.tally
    _adopt(rig)
    until = time.monotonic() + 120  # a worker may have died between a result and its record
    while rig.open_jobs() and time.monotonic() < until:
        time.sleep(0.05)
    tally.stuck = len(rig.open_jobs())
    tally.conflict += len(rig.acknowledged) - len(set(rig.acknowledged.values()))
    for job_id in rig.acknowledged:
        tally.count(rig.ledger.read_events(job_id))
    lines = _read(rig, "answers/results.jsonl").splitlines()
    tally.conflict += len(lines) - len({json.loads(line)["custom_id"] for line in lines})
    for n in range(count):
        text = _read(rig, f"answers/results/{n:05}.mp4.json")
        if not text:
            tally.lost += 1
            continue
        answer = Result.model_validate_json(text).answers[0].text
        kind = n % len(rig.clips) * len(QUESTIONS) + 1
        tally.wrong += answer != rig.expected(kind)
    tally.lost += max(0, count - len(lines))


def _read(rig: Rig, key: str) -> str:
    try:
        return str(rig._s3.get_object(Bucket="faults", Key=key)["Body"].read().decode())
    except rig._s3.exceptions.NoSuchKey:
        return ""


if __name__ == "__main__":
    main(run, jobs=500, about=__doc__)
