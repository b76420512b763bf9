"""One measurement in a process of its own, for `frames.py`; prints one JSON object.

    python benchmarks/lib/measuring.py measure|throng|scenes ARGUMENTS

Imports and a warm-up on a short clip come before the clock.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.clips import number_in
from lib.samplers import SAMPLERS

THRONG_S = 10.0
"""Time for which the concurrent part starts jobs; those under way are waited for."""


def cpu_s() -> float:
    """User and system time of this process, its ended children and those still alive."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = sum(usage.ru_utime + usage.ru_stime for usage in ended)
    try:
        import psutil
    except ImportError:
        return used
    alive = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return used + sum(times.user + times.system for times in alive)


def measure(sampler: str, path: Path, frames: int, warm_up: Path) -> dict[str, Any]:
    take = SAMPLERS[sampler]
    take(warm_up, 4)
    cpu, wall = cpu_s(), time.perf_counter()
    pictures = take(path, frames)
    cpu, wall = cpu_s() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "numbers": [number_in(p) for p in pictures]}


def throng(sampler: str, path: Path, frames: int, warm_up: Path, in_flight: int) -> dict[str, Any]:
    """Jobs per second with so many threads, each taking its next video when one is done."""
    take = SAMPLERS[sampler]
    take(warm_up, 4)
    cpu, begun = cpu_s(), time.perf_counter()

    def work(_: int) -> int:
        done = 0
        while done == 0 or time.perf_counter() - begun < THRONG_S:
            take(path, frames)
            done += 1
        return done

    with ThreadPoolExecutor(in_flight) as pool:
        jobs = sum(pool.map(work, range(in_flight)))
    wall = time.perf_counter() - begun
    return {"jobs": jobs, "jobs_per_s": jobs / wall, "cpu_s_per_job": (cpu_s() - cpu) / jobs}


def scenes(path: Path, warm_up: Path) -> dict[str, Any]:
    """Measures how PySceneDetect finds where scenes change: it looks at every picture."""
    from scenedetect import ContentDetector, detect

    detect(str(warm_up), ContentDetector())
    cpu, wall = cpu_s(), time.perf_counter()
    found = detect(str(path), ContentDetector())
    return {
        "cpu_s": cpu_s() - cpu,
        "wall_s": time.perf_counter() - wall,
        "scenes": len(found),
    }


def answer(action: str, *arguments: str) -> dict[str, Any]:
    """Answers the request that a child was started with."""
    if action == "scenes":
        return scenes(Path(arguments[0]), Path(arguments[1]))
    sampler, path, frames, warm_up, *in_flight = arguments
    if action == "throng":
        return throng(sampler, Path(path), int(frames), Path(warm_up), int(in_flight[0]))
    return measure(sampler, Path(path), int(frames), Path(warm_up))


if __name__ == "__main__":
    print(json.dumps(answer(*sys.argv[1:])))
