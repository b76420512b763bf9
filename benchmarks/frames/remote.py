"""Bytes, requests and time for a few frames of a video at the other end of a link, in one run.

    python benchmarks/frames/remote.py [--json] [--readers R ...] [--seconds S ...] [--latency-ms 20]

Clips come from `clips.py` (H.264, a keyframe every five seconds), with their index (moov) at the
end and at the beginning; the link is `slow_server.py`, a process of its own, which also counts
bytes and requests; who reads is in `readers.py`. A measurement is a process of its own: imports, a
warm-up on a clip of one second, then the clock around one call. The median of three runs counts; a
run of more than 10 s is not repeated. `right` counts the pictures that bear the number asked for.

Floor of exact frames: half a GOP a frame, N x GOP / (2 x duration) of the file, and the moov.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.clips import (
    FPS,
    GOP,
    KINDS,
    SEGMENT_S,
    WARM_UP_S,
    count_of,
    default_cache,
    make_clip,
    number_in,
)
from lib.readers import PACKAGES, READERS

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("av", "httpcore2", "requests", "fsspec", "obstore", "smart_open", "torchcodec")
PLACES = ("moov last", "moov first")
RUNS = 3
REPEAT_BELOW_S = 10
TIMEOUT_S = 300


@dataclass
class Row:
    seconds: int
    place: str
    reader: str
    size_bytes: int
    floor_bytes: int
    bytes: int | None = None
    share: float | None = None
    """Share of the file's bytes."""
    over_floor: float | None = None
    requests: int | None = None
    wall_s: float | None = None
    right: int | None = None
    runs: int = 0
    error: str | None = None


# Clips


def clip_at(seconds: int, place: str, cache: Path) -> Path:
    """The clip with its moov there, made by stream copy if the cache has none."""
    path = make_clip(KINDS["h264"], seconds, cache)
    if place == "moov last":
        return path
    first = path.with_name(f"{path.stem}-moov-first.mp4")
    if not first.exists():
        part = first.with_name(f"part-{first.name}")
        _moov_first(path, part)
        part.rename(first)
    return first


def _moov_first(path: Path, to: Path) -> None:
    import av

    with (
        av.open(str(path)) as source,
        av.open(str(to), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                out.mux(packet)


def boxes_of(path: Path) -> dict[str, tuple[int, int]]:
    """The top-level boxes: start and length, bytes."""
    found: dict[str, tuple[int, int]] = {}
    at = 0
    with path.open("rb") as file:
        while len(head := _read_at(file, at, 16)) >= 8:
            length, kind = struct.unpack(">I4s", head[:8])
            if length == 1:
                length = struct.unpack(">Q", head[8:16])[0]
            found[kind.decode("latin-1")] = (at, length or path.stat().st_size - at)
            at += found[kind.decode("latin-1")][1]
    return found


def _read_at(file: Any, at: int, count_bytes: int) -> bytes:
    file.seek(at)
    return bytes(file.read(count_bytes))


def floor_bytes(path: Path, seconds: int, frames: int) -> int:
    boxes = boxes_of(path)
    duration_s = count_of(KINDS["h264"], seconds) / FPS
    gops = frames * (GOP / FPS) / (2 * duration_s)
    return round(boxes["mdat"][1] * min(1.0, gops)) + boxes["moov"][1]


# In the child: one measurement


def measure(reader: str, base_url: str, name: str, warm_up: str, frames: int) -> dict[str, Any]:
    take = READERS[reader]
    take(f"{base_url}/{warm_up}", 4)
    _count(base_url)
    begun = time.perf_counter()
    pictures = take(f"{base_url}/{name}", frames)
    wall_s = time.perf_counter() - begun
    return {"wall_s": wall_s, "numbers": [number_in(p) for p in pictures], **_count(base_url)}


def _count(base_url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{base_url}/-/count") as response:
        return dict(json.load(response))


# In the parent


@contextmanager
def serving(folder: Path, latency_ms: float, mb_per_s: float) -> Iterator[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "lib" / "slow_server.py"), str(folder)]
    options = ["--latency-ms", str(latency_ms), "--mb-per-s", str(mb_per_s)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def run_row(row: Row, base_url: str, name: str, warm_up: str, frames: int) -> None:
    """Fills the row in."""
    missing = PACKAGES.get(row.reader)
    if missing and importlib.util.find_spec(missing[0]) is None:
        row.error = f"pip install {missing[1]}"
        return
    runs: list[dict[str, Any]] = []
    while len(runs) < RUNS and (not runs or runs[-1]["wall_s"] < REPEAT_BELOW_S):
        found = _child(row.reader, base_url, name, warm_up, frames)
        if "error" in found:
            row.error = found["error"]
            return
        runs.append(found)
    row.runs = len(runs)
    row.wall_s = statistics.median(run["wall_s"] for run in runs)
    row.bytes = round(statistics.median(run["bytes"] for run in runs))
    row.requests = round(statistics.median(run["requests"] for run in runs))
    row.share = row.bytes / row.size_bytes
    row.over_floor = row.bytes / row.floor_bytes
    row.right = _right(row, runs[-1]["numbers"], frames)


def _right(row: Row, numbers: list[int | None], frames: int) -> int:
    total, minute = count_of(KINDS["h264"], row.seconds), SEGMENT_S * FPS
    wanted = [k * total // frames for k in range(frames)]
    if row.reader == "videoqa-keyframe":
        wanted = [min(round(n / GOP), (total - 1) // GOP) * GOP for n in wanted]
    return sum(number == n % minute for number, n in zip(numbers, wanted, strict=False))


def _child(reader: str, base_url: str, name: str, warm_up: str, frames: int) -> dict[str, Any]:
    arguments = ["--child", reader, base_url, name, warm_up, str(frames)]
    try:
        ended = subprocess.run(
            [sys.executable, __file__, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {TIMEOUT_S} s"}
    if ended.returncode:
        return {"error": (ended.stderr.strip().splitlines() or ["died"])[-1][:200]}
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def machine() -> dict[str, Any]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {"cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def print_table(rows: list[Row], link: str) -> None:
    print(f"8 frames of H.264 over {link}")
    for seconds in dict.fromkeys(row.seconds for row in rows):
        for place in PLACES:
            some = [row for row in rows if (row.seconds, row.place) == (seconds, place)]
            if not some:
                continue
            floor = some[0].floor_bytes / some[0].size_bytes
            print(f"\n{seconds} s, {some[0].size_bytes / 1e6:.1f} MB, {place}, floor {floor:.2%}")
            print(f"{'':20}{'bytes':>9}{'of floor':>10}{'requests':>10}{'seconds':>9}{'right':>7}")
            for row in some:
                print(_line(row))


def _line(row: Row) -> str:
    if row.error is not None or row.share is None or row.wall_s is None:
        return f"{row.reader:20} {row.error}"
    return (
        f"{row.reader:20}{row.share:>9.2%}{row.over_floor:>10.2f}{row.requests:>10}"
        f"{row.wall_s:>9.2f}{row.right:>7}"
    )


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        reader, base_url, name, warm_up, frames = sys.argv[2:]
        print(json.dumps(measure(reader, base_url, name, warm_up, int(frames))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--seconds", nargs="+", type=int, default=[60, 3600])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--mb-per-s", type=float, default=50.0)
    args = parser.parse_args()
    warm_up = make_clip(KINDS["h264"], WARM_UP_S, args.cache).name
    rows: list[Row] = []
    for seconds in args.seconds:
        for place in PLACES:
            path = clip_at(seconds, place, args.cache)
            floor = floor_bytes(path, seconds, args.frames)
            for reader in args.readers:
                row = Row(seconds, place, reader, path.stat().st_size, floor)
                with serving(args.cache, args.latency_ms, args.mb_per_s) as base_url:
                    run_row(row, base_url, path.name, warm_up, args.frames)
                rows.append(row)
                print(_line(row), file=sys.stderr, flush=True)
    link = f"{args.latency_ms:g} ms a request, {args.mb_per_s:g} MB/s"
    if args.json:
        found = {"machine": machine(), "link": link, "frames": args.frames}
        print(json.dumps({**found, "rows": [asdict(row) for row in rows]}))
    else:
        print_table(rows, link)


if __name__ == "__main__":
    main()
