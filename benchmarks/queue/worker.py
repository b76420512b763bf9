"""A whole worker against its engine alone: jobs per second with 16 in flight, in one run.

    python benchmarks/queue/worker.py [--jobs 64] [--runs 3] [--json]

Alone: a process that holds the engine and has all frames in memory; 16 threads ask it. Worker: a
production worker in its own process, which hears of each job through Redis and Celery, fetches and
decodes its clip, and writes its result; a client keeps 16 jobs in flight. Both have the same model
(a LLaVA with random weights, 8 layers of 512, float32, one torch thread; no checkpoint is needed),
the same clips, and 32 tokens an answer; their answers are compared. The best of so many turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("benchmarks", "training")]

IN_FLIGHT = 16
FRAMES, TOKENS = 8, 32
QUESTION = "What is moving?"


def alone(folder: Path, paths: list[Path]) -> dict[str, Any]:
    from videoqa.contract import Generation, Sampling
    from videoqa_worker.engine import Engine, MediaQuestion
    from videoqa_worker.frames import sample_frames
    from videoqa_worker.prompt import FrameInput
    from videoqa_worker.settings import EngineConfig

    def media(path: Path) -> FrameInput:
        frames = sample_frames(path, Sampling(frames=FRAMES)).frames
        return FrameInput("video", tuple(frame.pixels for frame in frames))

    config = EngineConfig(model=str(folder), device="cpu", cpu_threads=1, max_batch=IN_FLIGHT)
    with Engine(config) as engine:
        shown = [media(path) for path in paths]
        generation = Generation(max_new_tokens=TOKENS)

        def answer(video: FrameInput) -> str:
            return engine.ask(MediaQuestion([video], QUESTION, generation=generation)).result().text

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            list(threads.map(answer, shown[:IN_FLIGHT]))  # warm, and then not kept
            begun = time.monotonic()
            answers = list(threads.map(answer, shown[IN_FLIGHT:]))
            seconds = time.monotonic() - begun
    return {"answers": answers, "seconds": seconds}


def by_worker(model: Path, paths: list[Path], folder: Path) -> dict[str, Any]:
    from videoqa_worker.embedded import Stack

    environ = dict(os.environ) | {
        "VIDEOQA_MODEL": str(model),
        "VIDEOQA_FILE_ROOTS": str(paths[0].parent),
        "VIDEOQA_CPU_THREADS": "1",
        "VIDEOQA_CACHE_TTL_S": "0",
        "VIDEOQA_MAX_BATCH": str(IN_FLIGHT),
        "VIDEOQA_SLOTS": str(IN_FLIGHT),
    }
    with Stack(folder, environ) as stack, stack.client() as client:
        stack.wait_until_ready(lambda state: None)

        def answer(path: Path) -> str:
            job = client.submit(
                inputs=[path.as_uri()],
                questions=[QUESTION],
                sampling={"frames": FRAMES},
                generation={"max_new_tokens": TOKENS},
            )
            client.wait(job.id, timeout_s=600)
            return client.result(job.id).answers[0].text

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            list(threads.map(answer, paths[:IN_FLIGHT]))
            begun = time.monotonic()
            answers = list(threads.map(answer, paths[IN_FLIGHT:]))
            return {"answers": answers, "seconds": time.monotonic() - begun}


def run(jobs: int, runs: int) -> dict[str, Any]:
    from demo_world import sample_scene, write_clip
    from lib.gpu_models import write

    draw = random.Random(3)
    found: dict[str, list[dict[str, Any]]] = {"alone": [], "worker": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        write("medium", model)
        paths = [
            write_clip(sample_scene(draw, "single"), folder / f"{n}.mp4", duration_s=5)
            for n in range(jobs + IN_FLIGHT)
        ]
        command = [sys.executable, __file__, "--alone", str(model), *map(str, paths)]
        for turn in range(runs):
            print(f"turn {turn + 1} of {runs}", file=sys.stderr)
            output = subprocess.run(command, check=True, capture_output=True).stdout
            found["alone"].append(json.loads(output.splitlines()[-1]))
            found["worker"].append(by_worker(model, paths, folder / f"stack-{turn}"))
    rates = {
        side: [round(jobs / turn["seconds"], 3) for turn in turns] for side, turns in found.items()
    }
    pairs = zip(found["alone"][0]["answers"], found["worker"][0]["answers"], strict=True)
    return {
        "jobs": jobs,
        "in_flight": IN_FLIGHT,
        "same_answers": sum(a == b for a, b in pairs),
        "distinct_answers": len(set(found["alone"][0]["answers"])),
        "jobs_per_s": rates,
        "share_of_engine_alone": round(max(rates["worker"]) / max(rates["alone"]), 3),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(alone(Path(args.alone[0]), [Path(path) for path in args.alone[1:]])))
        return
    found = run(args.jobs, args.runs)
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
