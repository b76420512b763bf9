"""CPU and wall time of frame sampling: videoqa against the guide and the libraries, in one run.

    python benchmarks/frames.py [--quick] [--json] [--peers P ...] [--kinds K ...] [--seconds S ...]

Clips come from `clips.py` (numbers written into the pictures), peers from `samplers.py`. A
measurement is a process of its own: imports, a warm-up on a clip of one second, then the clock
around one call. CPU time is user + system of all threads and child processes. The least of three
runs counts; a run of more than a minute is not repeated. `right` counts the pictures that bear the
number that the sampler asked for. Ratios: CPU time of the guide over that of the sampler; beside
it, of the PyAV loop of the model pages over that of the sampler.

At an hour, samplers that read everything are run for 8 frames only (their cost is that of the
video), and the ratios of 32 frames there refer to those runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clips import (
    DURATIONS_S,
    FPS,
    KINDS,
    SEGMENT_S,
    WARM_UP_S,
    count_of,
    default_cache,
    make_clip,
    number_in,
)
from samplers import PACKAGES, READS_ALL, SAMPLERS, expected

ROOT = Path(__file__).resolve().parent.parent
FRAMES = (8, 32)
IN_FLIGHT = (1, 2, 4, 8, 16)
LIBRARIES = ("opencv-python-headless", "torch", "torchcodec", "decord2", "scenedetect")
GUIDES = ("guide", "guide-pyav")
PARTS = ("rows", "concurrent", "scene")
RUNS = 3
REPEAT_BELOW_S = 60
THRONG_S = 10.0
"""So long jobs are started in the concurrent part; those under way are waited for."""


@dataclass
class Row:
    kind: str
    seconds: int
    frames: int
    sampler: str
    cpu_s: float | None = None
    wall_s: float | None = None
    right: int | None = None
    runs: int = 0
    ratio: float | None = None
    """CPU time of the guide over this one's."""
    ratio_pyav: float | None = None
    """CPU time of the PyAV loop of the model pages over this one's."""
    error: str | None = None


# In the child: one measurement


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
    """What PySceneDetect takes to find where scenes change: it looks at every picture."""
    from scenedetect import ContentDetector, detect

    detect(str(warm_up), ContentDetector())
    cpu, wall = cpu_s(), time.perf_counter()
    found = detect(str(path), ContentDetector())
    return {
        "cpu_s": cpu_s() - cpu,
        "wall_s": time.perf_counter() - wall,
        "scenes": len(found),
    }


# In the parent: which measurements


def child(action: str, *arguments: object, limit_s: float) -> dict[str, Any]:
    """The answer of a process of its own; {"error": ...} if it fails or takes too long."""
    command = [sys.executable, __file__, "--child", action, *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {limit_s:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit {done.returncode}: {last[:160]}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _environment() -> dict[str, str]:
    """videoqa is that of this checkout."""
    paths = [str(ROOT / part) for part in ("producer", "worker")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}


def measured(row: Row, path: Path, warm_up: Path, limit_s: float) -> Row:
    """The least of up to RUNS runs."""
    numbers = expected(row.sampler, count_of(row.seconds), row.frames)
    wanted = [number % (SEGMENT_S * FPS) for number in numbers]
    while row.runs < RUNS:
        found = child("measure", row.sampler, path, row.frames, warm_up, limit_s=limit_s)
        if "error" in found:
            row.error = found["error"]
            break
        row.runs += 1
        row.cpu_s = min(found["cpu_s"], row.cpu_s or float("inf"))
        row.wall_s = min(found["wall_s"], row.wall_s or float("inf"))
        row.right = sum(a == b for a, b in zip(found["numbers"], wanted, strict=False))
        if found["wall_s"] > REPEAT_BELOW_S:
            break
    return row


def all_rows(args: argparse.Namespace, samplers: list[str]) -> Iterator[Row]:
    for kind in args.kinds:
        warm_up = make_clip(KINDS[kind], WARM_UP_S, args.cache)
        for seconds in args.seconds:
            path = make_clip(KINDS[kind], seconds, args.cache)
            bases: dict[str, float | None] = {}
            for frames in FRAMES:
                for sampler in samplers:
                    if seconds == DURATIONS_S[-1] and frames != 8 and sampler in READS_ALL:
                        continue
                    row = Row(kind, seconds, frames, sampler)
                    measured(row, path, warm_up, args.limit_s)
                    bases |= {sampler: row.cpu_s} if sampler in GUIDES else {}
                    row.ratio, row.ratio_pyav = (over(bases.get(g), row.cpu_s) for g in GUIDES)
                    print(line(row), file=sys.stderr, flush=True)
                    yield row


def over(base_s: float | None, cpu_s: float | None) -> float | None:
    return base_s / cpu_s if base_s and cpu_s else None


def concurrent(args: argparse.Namespace, samplers: list[str]) -> Iterator[dict[str, Any]]:
    """Minutes of H.264, 8 frames."""
    kind = KINDS["h264"]
    path, warm_up = (make_clip(kind, seconds, args.cache) for seconds in (SEGMENT_S, WARM_UP_S))
    for sampler in samplers:
        for in_flight in IN_FLIGHT:
            found = child("throng", sampler, path, 8, warm_up, in_flight, limit_s=args.limit_s)
            yield {"sampler": sampler, "in_flight": in_flight, **found}
            rate = found.get("error") or f"{found['jobs_per_s']:.2f} jobs/s"
            print(f"{sampler:14} {in_flight:2} in flight  {rate}", file=sys.stderr, flush=True)


def scene_cost(args: argparse.Namespace) -> dict[str, Any]:
    if importlib.util.find_spec("scenedetect") is None:
        return {"error": "not installed: pip install scenedetect"}
    kind = KINDS["h264"]
    path, warm_up = (make_clip(kind, seconds, args.cache) for seconds in (SEGMENT_S, WARM_UP_S))
    return child("scenes", path, warm_up, limit_s=args.limit_s)


# What is said


def line(row: Row) -> str:
    start = f"{row.kind:10} {row.seconds:5} s {row.frames:3}  {row.sampler:14}"
    if row.cpu_s is None or row.wall_s is None:
        return f"{start} {row.error}"
    ratios = " ".join(f"{r:6.1f}x" if r else "      -" for r in (row.ratio, row.ratio_pyav))
    times = f"{row.cpu_s:9.3f} CPU s {row.wall_s:9.3f} s {ratios}"
    return f"{start} {times}  {row.right:2}/{row.frames} right  {row.error or ''}".rstrip()


def key(row: Row) -> str:
    return f"{row.kind}/{row.seconds}s/{row.frames}/{row.sampler}"


def missing() -> dict[str, str]:
    """Samplers that cannot run here, with what to install."""
    lacking = {
        name: f"pip install {install}"
        for name, (module, install) in PACKAGES.items()
        if importlib.util.find_spec(module) is None
    }
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        lacking |= dict.fromkeys(("ffmpeg-seek", "ffmpeg-select"), "install FFmpeg's programs")
    return lacking


def machine() -> str:
    models = [
        text.split(":", 1)[1].strip()
        for text in Path("/proc/cpuinfo").read_text().splitlines()
        if text.startswith("model name")
    ]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    names = ("av", "numpy", *LIBRARIES)
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    for name, command in {
        "ffmpeg": ["ffmpeg", "-version"],
        "videoqa": ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
    }.items():
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            found[name] = said.splitlines()[0].split(" Copyright")[0] if said else "unknown"
    return found


def run(args: argparse.Namespace) -> dict[str, Any]:
    lacking = missing()
    for name, install in lacking.items():
        print(f"left out: {name} ({install})", file=sys.stderr)
    samplers = [name for name in SAMPLERS if name in args.peers and name not in lacking]
    samplers.sort(key=lambda name: name not in GUIDES)  # first, for the ratios
    rows = list(all_rows(args, samplers)) if "rows" in args.parts else []
    return {
        "machine": machine(),
        "load": os.getloadavg()[1],
        "versions": versions(),
        "missing": lacking,
        "rows": [asdict(row) for row in rows],
        "ratios": {key(row): round(row.ratio, 2) for row in rows if row.ratio},
        "ratios_pyav": {key(row): round(row.ratio_pyav, 2) for row in rows if row.ratio_pyav},
        "concurrent": list(concurrent(args, samplers)) if "concurrent" in args.parts else [],
        "scene": scene_cost(args) if "scene" in args.parts else None,
    }


def table(found: dict[str, Any]) -> str:
    lines = [found["machine"], ", ".join(f"{k} {v}" for k, v in found["versions"].items()), ""]
    lines += [line(Row(**row)) for row in found["rows"]]
    lines += [f"left out: {name} ({install})" for name, install in found["missing"].items()]
    for entry in found["concurrent"]:
        rate = entry.get("error") or f"{entry['jobs_per_s']:.2f} jobs/s"
        lines.append(f"{entry['sampler']:14} {entry['in_flight']:2} in flight  {rate}")
    if found["scene"]:
        lines.append(f"PySceneDetect on a minute: {found['scene']}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10 s and 60 s of H.264 only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seconds", nargs="+", type=int, default=DURATIONS_S)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where clips are kept")
    parser.add_argument("--limit-s", type=float, default=1800, help="for one measurement")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.kinds, args.seconds, args.parts = ["h264"], DURATIONS_S[:2], ["rows"]
    return args


def answer(action: str, *arguments: str) -> dict[str, Any]:
    """What a child was asked for."""
    if action == "scenes":
        return scenes(Path(arguments[0]), Path(arguments[1]))
    sampler, path, frames, warm_up, *in_flight = arguments
    if action == "throng":
        return throng(sampler, Path(path), int(frames), Path(warm_up), int(in_flight[0]))
    return measure(sampler, Path(path), int(frames), Path(warm_up))


def main() -> None:
    args = parse()
    if args.child:
        print(json.dumps(answer(*args.child)))
        return
    found = run(args)
    print(json.dumps(found) if args.json else table(found))


if __name__ == "__main__":
    main()
