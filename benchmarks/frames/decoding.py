"""Cost of a decoding process of its own for a job, against decoding in the worker, in one run.

    python benchmarks/frames/decoding.py [--rounds 15] [--json]

8 frames of a 10 s clip of 1080p and of one of 320x240, H.264 with B-frames. Every way takes one
job in turn, round after round, so that a busy machine is as busy for all; every way's pixels are
touched, page by page, and compared once. Wall times are medians (and the best) over the rounds;
CPU time is that of the worker and of its decoding process together, their mean. Peers:

- here: `sample_frames` in this process
- ours: `Decoders`, warm; pixels in sealed shared memory
- pickled: a warm `ProcessPoolExecutor` (spawn), which pickles the pixels through a pipe
- forkserver: a new process for each job, forked from a server that has all imported; pickled
- fresh: `Decoders` started anew for each job, as after a crash or a cancel
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.clips import KINDS, default_cache, make_clip

from videoqa.contract import Sampling
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import CompleteFile, SampledVideo, sample_frames
from videoqa_worker.settings import FrameLimits

SAMPLING = Sampling(frames=8)
LIMITS = FrameLimits()
Way = Callable[[Path], SampledVideo]


def here(path: Path) -> SampledVideo:
    return sample_frames(path, SAMPLING)


def fresh(path: Path) -> SampledVideo:
    with Decoders(LIMITS, processes=1) as decoders:
        return decoders.sample(CompleteFile(path), SAMPLING)


def forked(path: Path) -> SampledVideo:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(path, theirs))
    process.start()
    theirs.close()
    with ours:
        video: SampledVideo = ours.recv()
    process.join()
    return video


def _send(path: Path, to: Connection) -> None:
    to.send(here(path))


def shrunk(clip: Path, path: Path) -> Path:
    """Writes the clip in 320x240."""
    if path.exists():
        return path
    part = path.with_name("part-" + path.name)
    with av.open(str(clip)) as source, av.open(str(part), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "medium"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 320, 240, "yuv420p", 125
        for picture in source.decode(video=0):
            small = picture.reformat(320, 240, "yuv420p")
            out.mux(stream.encode(small))
        out.mux(stream.encode(None))
    return part.rename(path)


def touch(video: SampledVideo) -> int:
    """Reads a byte of each page, as a first reader would."""
    return sum(int(frame.pixels.reshape(-1)[::4096].max()) for frame in video.frames)


def measured(way: Way, path: Path) -> float:
    begun = time.perf_counter()
    touch(way(path))
    return time.perf_counter() - begun


def cpu_of(way: Way, path: Path, jobs: int, child: psutil.Process | None) -> float:
    """Seconds a job, of this process and of one child; ticks are 10 ms, so over many jobs."""

    def used() -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        alive = child.cpu_times() if child else None
        return (
            time.process_time()
            + ended.ru_utime
            + ended.ru_stime
            + (alive.user + alive.system if alive else 0.0)
        )

    begun = used()
    for _ in range(jobs):
        touch(way(path))
    return (used() - begun) / jobs


def same(a: SampledVideo, b: SampledVideo) -> bool:
    return len(a.frames) == len(b.frames) and all(
        np.array_equal(x.pixels, y.pixels) for x, y in zip(a.frames, b.frames, strict=True)
    )


def run_clip(path: Path, rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        decoders = stack.enter_context(Decoders(LIMITS, processes=1))
        decoders.start()
        child = psutil.Process(decoders.pids[0])
        spawn = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
        ways: dict[str, Way] = {
            "here": here,
            "ours": lambda path: decoders.sample(CompleteFile(path), SAMPLING),
            "pickled": lambda path: pool.submit(here, path).result(),
            "forkserver": forked,
            "fresh": fresh,
        }
        expected = here(path)
        assert all(same(way(path), expected) for way in ways.values())
        walls: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                walls[name].append(measured(way, path))
        cpu_s = {
            "here": cpu_of(here, path, rounds, None),
            "ours": cpu_of(ways["ours"], path, rounds, child),
            "fresh": cpu_of(fresh, path, rounds, None),
        }
        extra = [a - b for a, b in zip(walls["ours"], walls["here"], strict=True)]
        return {
            "wall_ms": {name: _ms(statistics.median(times)) for name, times in walls.items()},
            "best_wall_ms": {name: _ms(min(times)) for name, times in walls.items()},
            "cpu_ms": {name: _ms(seconds) for name, seconds in cpu_s.items()},
            "ours_over_here_ms": _ms(statistics.median(extra)),
            "child_resident_mb": round(child.memory_info().rss / 1e6, 1),
            "child_own_mb": round(child.memory_full_info().uss / 1e6, 1),
            "same_pixels": True,
        }


def cold(rounds: int) -> dict[str, float]:
    """Measures the start of a decoding process, until it takes orders."""
    walls, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(rounds):
        begun = time.perf_counter()
        with Decoders(LIMITS, processes=1) as decoders:
            decoders.start()
            walls.append(time.perf_counter() - begun)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_ms": _ms(statistics.median(walls)),
        "best_wall_ms": _ms(min(walls)),
        "cpu_ms": _ms(cpu_s / rounds),
    }


def idle() -> dict[str, float]:
    """A process that has served nothing yet."""
    with Decoders(LIMITS, processes=1) as decoders:
        decoders.start()
        memory = psutil.Process(decoders.pids[0]).memory_full_info()
        return {
            "resident_mb": round(memory.rss / 1e6, 1),
            "own_mb": round(memory.uss / 1e6, 1),
            "address_space_mb": round(memory.vms / 1e6, 1),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def run(rounds: int) -> dict[str, Any]:
    multiprocessing.set_forkserver_preload(["videoqa_worker.frames", "decoding"])
    cache = default_cache()
    h264 = KINDS["h264"]
    large = make_clip(h264, 10, cache)
    small = shrunk(large, cache / "decoding-10s-240p.mp4")
    return {
        "rounds": rounds,
        "start": cold(rounds),
        "idle": idle(),
        "1080p": run_clip(large, rounds),
        "240p": run_clip(small, rounds),
        "load": psutil.getloadavg()[0],
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores",
        "python": platform.python_version(),
        "pyav": av.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="the figures alone")
    args = parser.parse_args()
    report = run(args.rounds)
    if args.json:
        print(json.dumps(report))
        return
    print(f"a start: {report['start']['wall_ms']} ms; idle: {report['idle']['own_mb']} MB its own")
    for clip in ("1080p", "240p"):
        print(f"\n8 frames of 10 s of {clip}")
        for way, wall_ms in report[clip]["wall_ms"].items():
            cpu_ms = report[clip]["cpu_ms"].get(way, "-")
            best_ms = report[clip]["best_wall_ms"][way]
            print(f"  {way:<12}{wall_ms:>9} ms (best {best_ms}), CPU {cpu_ms} ms")


if __name__ == "__main__":
    sys.exit(main())
