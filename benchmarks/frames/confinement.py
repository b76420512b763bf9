"""Cost of confining a decoding process: its start and its jobs, with and without, in one run.

    python benchmarks/frames/confinement.py [--rounds 10] [--jobs 40] [--json]

Confined: the worker's decoding process as it is. Bare: the same process, whose `confine` does nothing.
Both sample 8 frames of the same H.264 clip (640x360, 10 s), in turns, one process each a round. CPU
seconds are those of the process (user and system, from its start on), wall seconds those of the caller.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("producer", "worker", "benchmarks")]

import av  # noqa: E402
import numpy as np  # noqa: E402

from videoqa.contract import Sampling  # noqa: E402
from videoqa_worker.decoding.decoder_process import _read_cpu_s  # noqa: E402
from videoqa_worker.decoding.decoders import Decoders  # noqa: E402
from videoqa_worker.decoding.launch import CHILD  # noqa: E402
from videoqa_worker.frames import CompleteFile  # noqa: E402
from videoqa_worker.settings import FrameLimits  # noqa: E402

BARE = """
import sys
from videoqa_worker.decoding import child
child._install_bare_package()  # as `main` does, before anything imports videoqa
from videoqa_worker.decoding import confine
confine.confine = lambda uid, on_new_user: confine.Confinement()
child.main(sys.argv[1:])
"""
WAYS = {"confined": CHILD, "bare": (sys.executable, "-P", "-c", BARE)}


def write_clip(path: Path) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 640, 360, "yuv420p", 50
        for n in range(250):
            pixels = np.ascontiguousarray(noise[n : n + 360, 2 * n : 2 * n + 640])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))


def measure(way: str, path: Path, jobs: int) -> dict[str, float]:
    with Decoders(FrameLimits(), processes=1, argv=WAYS[way]) as decoders:
        begun_s = time.monotonic()
        decoders.start()
        start_s = time.monotonic() - begun_s
        (pid,) = decoders.pids
        start_cpu_s = _read_cpu_s(pid)
        decoders.sample(CompleteFile(path), Sampling())
        before_s, begun_s = _read_cpu_s(pid), time.monotonic()
        for _ in range(jobs):
            decoders.sample(CompleteFile(path), Sampling())
        return {
            "start_s": start_s,
            "start_cpu_s": start_cpu_s,
            "job_s": (time.monotonic() - begun_s) / jobs,
            "job_cpu_s": (_read_cpu_s(pid) - before_s) / jobs,
        }


def run(rounds: int, jobs: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "clip.mp4"
        write_clip(path)
        for n in range(rounds):
            for way in list(WAYS) if n % 2 else list(WAYS)[::-1]:
                found[way].append(measure(way, path, jobs))
    best = {
        way: {key: round(min(turn[key] for turn in turns), 5) for key in turns[0]}
        for way, turns in found.items()
    }
    middle = {
        way: {key: round(statistics.median(turn[key] for turn in turns), 5) for key in turns[0]}
        for way, turns in found.items()
    }
    return {
        "rounds": rounds,
        "jobs": jobs,
        "best": best,
        "median": middle,
        "confined_over_bare": {
            key: round(middle["confined"][key] / middle["bare"][key], 3) for key in middle["bare"]
        },
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=40, help="jobs of a process in a round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = run(args.rounds, args.jobs)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
