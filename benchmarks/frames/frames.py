"""CPU and wall time of frame sampling: videoqa against the guide and the libraries, in one run.

    python benchmarks/frames/frames.py [--quick] [--json] [--peers P ...] [--kinds K ...] [--seconds S ...]

Clips come from `clips.py` (numbers written into the pictures), peers from `samplers.py`. A
measurement is a process of its own: imports, a warm-up on a clip of one second, then the clock
around one call. CPU time is user + system of all threads and child processes. The least of three
runs counts; a run of more than 20 s is not repeated. `right` counts the pictures that bear the
number that the sampler asked for. Ratios: CPU time of the guide over that of the sampler; beside
it, of the PyAV loop of the model pages over that of the sampler.

From ten minutes on, samplers that read everything are run for 8 frames only (their cost is that
of the video), and the ratios of 32 frames there refer to those runs; at an hour, where one such
run takes minutes, only the guide is, on `h264` and `h264-whole`. `told` is told which pictures
to decode, and so says how little is left to gain with FFmpeg's decoders.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.clips import (
    DURATIONS_S,
    FPS,
    KINDS,
    SEGMENT_S,
    WARM_UP_S,
    count_of,
    default_cache,
    make_clip,
)
from lib.samplers import PACKAGES, READS_ALL, SAMPLERS, expected

ROOT = Path(__file__).resolve().parents[2]
CHILD = ROOT / "benchmarks" / "lib" / "measuring.py"
FRAMES = (8, 32)
IN_FLIGHT = (1, 2, 4, 8, 16)
LIBRARIES = ("opencv-python-headless", "torch", "torchcodec", "decord2", "scenedetect")
GUIDES = ("guide", "guide-pyav")
PARTS = ("rows", "concurrent", "scene")
RUNS = 3
REPEAT_BELOW_S = 20


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


def child(action: str, *arguments: object, limit_s: float) -> dict[str, Any]:
    """The answer of a process of its own; {"error": ...} if it fails or takes too long."""
    command = [sys.executable, str(CHILD), action, *map(str, arguments)]
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


def measured(row: Row, path: Path, warm_up: Path, args: argparse.Namespace) -> Row:
    """The least of up to RUNS runs."""
    numbers = expected(row.sampler, count_of(KINDS[row.kind], row.seconds), row.frames)
    wanted = [number % (SEGMENT_S * FPS) for number in numbers]
    while row.runs < RUNS:
        found = child("measure", row.sampler, path, row.frames, warm_up, limit_s=args.limit_s)
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


def all_rows(args: argparse.Namespace, samplers: list[str]) -> list[Row]:
    rows: list[Row] = []
    for kind in args.kinds:
        warm_up = make_clip(KINDS[kind], WARM_UP_S, args.cache)
        for seconds in args.seconds:
            path = make_clip(KINDS[kind], seconds, args.cache)
            for frames, sampler in product(FRAMES, samplers):
                if sampler in READS_ALL and _told_by_others(sampler, kind, seconds, frames):
                    continue
                rows.append(measured(Row(kind, seconds, frames, sampler), path, warm_up, args))
                _compare(rows[-1], rows)
                print(line(rows[-1]), file=sys.stderr, flush=True)
    for row in rows:
        _compare(row, rows)
    return rows


def _told_by_others(sampler: str, kind: str, seconds: int, frames: int) -> bool:
    """Tells whether the cost of reading everything once more is known from other rows."""
    if seconds == DURATIONS_S[-1] and not (sampler == "guide" and kind in ("h264", "h264-whole")):
        return True
    return seconds > SEGMENT_S and frames != FRAMES[0]


def _compare(row: Row, rows: list[Row]) -> None:
    """Sets the ratios, as far as the guides have been measured."""
    frames = FRAMES[0] if row.seconds > SEGMENT_S else row.frames
    clip = (row.kind, row.seconds, frames)
    base_s = {r.sampler: r.cpu_s for r in rows if (r.kind, r.seconds, r.frames) == clip}
    row.ratio, row.ratio_pyav = (
        base / row.cpu_s if (base := base_s.get(guide)) and row.cpu_s else None for guide in GUIDES
    )


def concurrent(args: argparse.Namespace, samplers: list[str]) -> Iterator[dict[str, Any]]:
    """H.264, 8 frames."""
    kind = KINDS["h264"]
    path, warm_up = (make_clip(kind, s, args.cache) for s in (args.concurrent_s, WARM_UP_S))
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
    rows = all_rows(args, samplers) if "rows" in args.parts else []
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
    parser.add_argument(
        "--concurrent-s", type=int, default=DURATIONS_S[0], help="the clip of jobs in flight"
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where clips are kept")
    parser.add_argument("--limit-s", type=float, default=1800, help="for one measurement")
    args = parser.parse_args()
    if args.quick:
        args.kinds, args.seconds, args.parts = ["h264"], DURATIONS_S[:2], ["rows"]
    return args


def main() -> None:
    args = parse()
    found = run(args)
    print(json.dumps(found) if args.json else table(found))


if __name__ == "__main__":
    main()
