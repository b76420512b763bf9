"""Cost of a sheet of thumbnails: CPU time and bytes a job, and a worker's jobs with and without, in turns.

    python benchmarks/frames/sheets.py [CLIP ...] [--rounds 20] [--jobs 40] [--json]

Drawing is measured alone, on frames that are in memory: by the job's thread (thumbnails), and by the thread
that encodes and writes the file. Then a real worker with the demo model answers the same question about the
first clip, with and without a sheet in turns, one job at a time; the figures are wall time. Without CLIP a
generated one is taken, 1080p, 10 s.
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

from lib.clips import KINDS, default_cache, make_clip  # noqa: E402

from videoqa.contract import JobRequest, Sampling  # noqa: E402
from videoqa.jobs import Claim  # noqa: E402
from videoqa.storage import ObjectStore, file_path  # noqa: E402
from videoqa_worker.embedded import Stack  # noqa: E402
from videoqa_worker.frames import CompleteFile, sample_frames  # noqa: E402
from videoqa_worker.job.sheet import SheetKeeper  # noqa: E402

FRAMES = (8, 16, 32)


def measure(path: Path, frames: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Measures the sheet of one job: medians of CPU milliseconds, and its bytes."""
    pixels = [
        one.pixels for one in sample_frames(CompleteFile(path), Sampling(frames=frames)).frames
    ]
    keeper = SheetKeeper(ObjectStore(), folder.as_uri() + "/{job_id}.jpg", is_default=True)
    request = JobRequest.model_validate({"inputs": [path], "questions": ["What is it?"]})
    drawing, writing = [], []
    for n in range(rounds):
        sheet = keeper.begin(Claim(f"job_{n}", 1, request, time.time(), 60.0, 0.0, "t"))
        begun = time.thread_time()
        sheet.add(pixels)
        drawn = time.thread_time()
        sheet.write()
        drawing.append(drawn - begun)
        writing.append(time.thread_time() - drawn)
    keeper.close()
    return {
        "clip": path.name,
        "frames": len(pixels),
        "size": f"{pixels[0].shape[1]}x{pixels[0].shape[0]}",
        "drawing_ms": round(1000 * statistics.median(drawing), 1),
        "writing_ms": round(1000 * statistics.median(writing), 1),
        "kilobytes": round(file_path((folder / "job_0.jpg").as_uri()).stat().st_size / 1000),
    }


def ask(path: Path, jobs: int, folder: Path) -> dict[str, float]:
    """Has a worker answer jobs with and without a sheet; returns the median seconds of each kind."""
    environ = {
        **{name: text for name, text in os.environ.items() if "VIDEOQA_" not in name},
        "VIDEOQA_FILE_ROOTS": "/",
    }
    spent: dict[bool, list[float]] = {True: [], False: []}
    with Stack(folder, environ) as stack, stack.client() as client:
        stack.wait_until_ready(lambda state: None)
        for n in range(2 * jobs + 4):
            begun = time.monotonic()
            job = client.submit(
                inputs=[path], questions=["What is moving?"], cache="off", sheet=bool(n % 2)
            )
            client.wait(job.id, timeout_s=120)
            if n >= 4:
                spent[bool(n % 2)].append(time.monotonic() - begun)
            assert (client.result(job.id).sheet is not None) == bool(n % 2)
    return {
        "with_s": round(statistics.median(spent[True]), 4),
        "without_s": round(statistics.median(spent[False]), 4),
        "with_best_s": round(min(spent[True]), 4),
        "without_best_s": round(min(spent[False]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=40, help="of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    clips = args.clips or [make_clip(KINDS["h264"], 10, default_cache())]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        rows = [
            measure(clip.absolute(), frames, args.rounds, Path(name))
            for clip in clips
            for frames in FRAMES
        ]
        worker = ask(clips[0].absolute(), args.jobs, Path(name) / "stack") if args.jobs else {}
    found = {
        "sheets": rows,
        "worker": worker,
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    if args.json:
        print(json.dumps(found))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    print(found["worker"], "load", found["load"])


if __name__ == "__main__":
    main()
