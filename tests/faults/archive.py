"""An archive in S3 is captioned by two workers while its producer and they are killed.

    python tests/faults/archive.py [--jobs 500] [--seed 1] [--json]

`videoqa caption` is killed with SIGKILL twice and begun again by the same command; workers are killed three
times. Each video must have one right result. `extra` counts runs of the model beyond one a video, jobs that
were submitted twice among them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa.job import Job
from videoqa_worker.demo.clips import write_clip
from videoqa_worker.demo.scenes import Scene

COLORS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
WAYS = ("left", "right", "up", "down")
QUESTION = "What color is it?"
PRODUCER_KILLS, WORKER_KILLS = 2, 3


def run(jobs: int, seed: int) -> Tally:
    with Rig("archive", seed, store={}) as rig:
        rig.start(2)
        names = put_clips(rig, jobs)
        command = [
            Path(sys.executable).parent / "videoqa", "caption", "s3://faults/archive/",
            "-q", QUESTION, "-n", "4", "-o", "s3://faults/captions", "--json", "--in-flight", "32",
        ]  # fmt: skip
        begun = time.monotonic()
        kills = [True] * PRODUCER_KILLS + [False] * WORKER_KILLS
        rig.draw.shuffle(kills)
        producer = start(rig, command)
        for n, of_producer in enumerate(kills, 1):
            until_done(rig, jobs * n // (len(kills) + 1))
            if of_producer:
                producer.kill()
                producer.communicate()
                rig.tally.kills += 1
                producer = start(rig, command)
            else:
                kill_worker(rig)
        out, error = producer.communicate(timeout=300)
        assert producer.returncode == 0, error
        rig.tally.notes["producer"] = json.loads(out)
        rig.tally.seconds = time.monotonic() - begun
        rig.tally.jobs = jobs
        look(rig, names)
        return rig.tally


def put_clips(rig: Rig, count: int) -> dict[str, str]:
    """Name of each video -> its color."""
    scenes = list(product(COLORS, SHAPES, WAYS))[: min(count, 48)]
    paths = [
        write_clip(
            Scene.single(*words), rig.folder / f"scene-{n}.mp4", size_px=(160, 120), duration_s=1.0
        )
        for n, words in enumerate(scenes)
    ]
    colors = {}
    for n in range(count):
        name = f"{n:05}.mp4"
        body = paths[n % len(paths)].read_bytes()
        rig._s3.put_object(Bucket="faults", Key=f"archive/{name}", Body=body)
        colors[name] = scenes[n % len(scenes)][0]
    return colors


def start(rig: Rig, command: list[str | Path]) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if "VIDEOQA_" not in name}
    environ |= rig.environ | {"VIDEOQA_REDIS_URL": rig.redis.url, "VIDEOQA_PREFIX": "faults"}
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def of_archive(rig: Rig) -> Iterator[Job]:
    cursor = None
    while True:
        page = rig.client.list(limit=1000, cursor=cursor)
        yield from (job for job in page.jobs if job.custom_id)
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


def until_done(rig: Rig, count: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if sum(job.state == "succeeded" for job in of_archive(rig)) >= count:
            return
        time.sleep(0.05)


def kill_worker(rig: Rig) -> None:
    rig.acknowledged = {job.id: n for n, job in enumerate(of_archive(rig)) if not job.final}
    victim = rig.draw.choice(rig.workers)
    victim.signal(signal.SIGSTOP)
    rig.kill(victim)
    rig.replace(victim)


def look(rig: Rig, colors: dict[str, str]) -> None:
    tally = rig.tally
    body = rig._s3.get_object(Bucket="faults", Key="captions/results.jsonl")["Body"].read()
    lines = [json.loads(line) for line in body.decode().splitlines()]
    answers = {line["custom_id"]: line.get("answers", {}).get("q1", "") for line in lines}
    tally.conflict += len(lines) - len(answers)
    tally.lost += len(colors.keys() - answers.keys())
    tally.wrong += sum(color not in answers.get(name, "").lower() for name, color in colors.items())
    found = list(of_archive(rig))
    tally.notes["submitted"] = len(found)
    runs = sum(
        event.type == "stage" and event.stage == "generating"
        for job in found
        for event in rig.ledger.read_events(job.id)
    )
    tally.extra_runs = runs - len(colors)


if __name__ == "__main__":
    main(run, jobs=500, about=__doc__)
