"""Ten jobs about one video against one job with ten questions, in one run: by the engine alone, and by the stack.

    python benchmarks/queue/reuse.py [--turns 7] [--model medium] [--size 1280x720] [--json]

Engine: a process that holds the engine and the frames. `together` asks ten questions about one prepared
video; `apart` asks each about a copy of its frames of its own, as ten jobs do that decoded it. Stack:
Redis and a production worker; `together` is one job with ten questions, `apart` ten jobs submitted at once,
`in_line` ten jobs of which each is submitted once the one before it has its result. Every turn of a side has a
video of its own, the sides take turns, and a ratio is that of one turn's side to the same turn's
`together`. CPU seconds are those of the engine's process; or of the worker, and of its decoders. Answers are
compared: those of the sides on the same video after the last turn.

Memory (`--memory 40`): the worker's shared and private resident memory after so many different videos, each asked
about once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker", "training")]
sys.path.append(str(ROOT / "benchmarks" / "lib"))

FRAMES, TOKENS, SECONDS, FPS = 8, 16, 6.0, 10
WORDS = [
    "apple",
    "river",
    "stone",
    "cloud",
    "horse",
    "lamp",
    "violin",
    "mountain",
    "pepper",
    "window",
]
QUESTIONS = [f"{word.title()} or {word[::-1]}: which of them moves?" for word in WORDS]
Turn = dict[str, dict[str, float]]


def measure_engine(model: str, paths: list[Path], turns: int) -> dict[str, Any]:
    """Returns the turns of the engine alone, and whether the sides answer alike."""
    import numpy as np

    from videoqa.contract import Generation, Sampling
    from videoqa_worker.engine import Engine, MediaQuestion
    from videoqa_worker.frames import sample_frames
    from videoqa_worker.prompt import FrameInput, PreparedMedia
    from videoqa_worker.settings import EngineConfig

    def read(path: Path) -> FrameInput:
        found = sample_frames(path, Sampling(frames=FRAMES)).frames
        return FrameInput(
            "video", tuple(each.pixels for each in found), tuple(f.pts_s for f in found)
        )

    def copy(media: FrameInput) -> FrameInput:
        return FrameInput("video", tuple(map(np.copy, media.frames)), media.pts_s)

    generation = Generation(max_new_tokens=TOKENS)
    config = EngineConfig(model=model, device="cpu", cpu_threads=1, max_batch=16)
    with Engine(config) as engine:

        def ask(media: list[Any]) -> list[str]:
            asked = [
                engine.ask(MediaQuestion(item, text, generation=generation))
                for item, text in zip(media, QUESTIONS, strict=True)
            ]
            return [each.result().text for each in asked]

        def together(media: FrameInput) -> list[str]:
            return ask([PreparedMedia([media])] * len(QUESTIONS))

        def apart(copies: list[FrameInput]) -> list[str]:
            return ask([PreparedMedia([each]) for each in copies])

        found: list[Turn] = []
        for turn in range(-1, turns):  # the first one warms up
            measured: Turn = {}
            one, other = (read(path) for path in paths[2 * (turn + 1) : 2 * (turn + 1) + 2])
            copies = [copy(other) for _ in QUESTIONS]
            sides: dict[str, Callable[[], list[str]]] = {
                "together": lambda one=one: together(one),
                "apart": lambda copies=copies: apart(copies),
            }
            for name in sorted(sides, reverse=turn % 2 == 0):
                cpu_s, begun_s = time.process_time(), time.monotonic()
                answers = sides[name]()
                measured[name] = {
                    "cpu_s": time.process_time() - cpu_s,
                    "wall_s": time.monotonic() - begun_s,
                }
                if name == "apart":
                    last = answers
            found.append(measured)
        engine.clear_caches()
        same = together(other) == last
    return {
        "turns": found[1:],
        "same_answers": same,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


class Worker:
    """A stack, and the CPU time of its worker and decoders."""

    def __init__(self, stack: Any, client: Any) -> None:
        self._client = client
        children = psutil.Process(os.getpid()).children(recursive=True)
        self._process = next(p for p in children if p.cmdline()[-2:] == ["-m", "videoqa_worker"])
        del stack

    def read_cpu_s(self) -> dict[str, float]:
        own = self._process.cpu_times()
        decoders = [child.cpu_times() for child in self._process.children(recursive=True)]
        return {
            "worker_cpu_s": own.user + own.system,
            "decoders_cpu_s": sum(t.user + t.system for t in decoders)
            + own.children_user
            + own.children_system,
        }

    def read_memory_mb(self) -> dict[str, int]:
        """Returns private and shared resident memory; frames lie in the shared one."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return {
            name.lower(): int(fields[name].split()[0]) >> 10 for name in ("RssAnon", "RssShmem")
        }

    def submit(self, path: Path, questions: list[str]) -> str:
        job = self._client.submit(
            inputs=[path.as_uri()],
            questions=questions,
            sampling={"frames": FRAMES},
            generation={"max_new_tokens": TOKENS},
        )
        return str(job.id)

    def wait(self, job_id: str) -> Any:
        self._client.wait(job_id, timeout_s=600)
        return self._client.result(job_id)

    def together(self, path: Path) -> list[Any]:
        return [self.wait(self.submit(path, QUESTIONS))]

    def apart(self, path: Path) -> list[Any]:
        jobs = [self.submit(path, [text]) for text in QUESTIONS]
        return [self.wait(job) for job in jobs]

    def in_line(self, path: Path) -> list[Any]:
        return [self.wait(self.submit(path, [text])) for text in QUESTIONS]

    def measure(self, ask: Callable[[Path], list[Any]], path: Path) -> dict[str, float]:
        before, begun_s = self.read_cpu_s(), time.monotonic()
        results = ask(path)
        wall_s = time.monotonic() - begun_s
        found = {name: used - before[name] for name, used in self.read_cpu_s().items()}
        return {
            "cpu_s": sum(found.values()),
            **found,
            "wall_s": wall_s,
            "sampling_s": sum(result.usage.sampling_s for result in results),
        }


def measure_stack(
    model: str, paths: list[Path], turns: int, memory_paths: list[Path], folder: Path
) -> dict[str, Any]:
    """Returns the turns of the whole stack, and the worker's memory after each video of `memory_paths`."""
    from videoqa_worker.embedded import Stack

    environ = dict(os.environ) | {
        "VIDEOQA_MODEL": model,
        "VIDEOQA_CPU_THREADS": "1",
        "VIDEOQA_CACHE_TTL_S": "0",
        "VIDEOQA_MAX_BATCH": "16",
        "VIDEOQA_SLOTS": "16",
        "VIDEOQA_SHEETS": "false",
    }
    found: list[Turn] = []
    with Stack(folder, environ) as stack, stack.client() as client:
        stack.wait_until_ready(lambda state: None)
        worker = Worker(stack, client)
        sides = {"together": worker.together, "apart": worker.apart, "in_line": worker.in_line}
        for turn in range(-1, turns):
            print(f"turn {turn + 1} of {turns}", file=sys.stderr)
            measured: Turn = {}
            order = sorted(sides, reverse=turn % 2 == 0)
            for n, name in enumerate(order):
                measured[name] = worker.measure(sides[name], paths[3 * (turn + 1) + n])
            found.append(measured)
        answers = [
            [answer.text for result in ask(paths[-1]) for answer in result.answers]
            for ask in sides.values()
        ]
        memory = [worker.read_memory_mb()]
        for path in memory_paths:
            worker.wait(worker.submit(path, QUESTIONS[:1]))
            memory.append(worker.read_memory_mb())
    kinds = {name: [point[name] for point in memory] for name in memory[0]}
    return {
        "turns": found[1:],
        "same_answers": all(each == answers[0] for each in answers),
        "distinct_answers": len(set(answers[0])),
        "memory_mb": {
            name: {"before": n[0], "most": max(n), "after": n[-1]} for name, n in kinds.items()
        }
        if memory_paths
        else None,
    }


def summarize(turns: list[Turn]) -> dict[str, Any]:
    """Returns medians in seconds, and the ratios to `together` by turn."""
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    ratios: dict[str, list[float]] = defaultdict(list)
    for turn in turns:
        for side, values in turn.items():
            for name, value in values.items():
                seconds[side][name].append(value)
            if side != "together":
                for name in ("cpu_s", "wall_s"):
                    ratio = values[name] / turn["together"][name]
                    ratios[f"{side}_{name.removesuffix('_s')}"].append(round(ratio, 2))
    return {
        "medians": {
            side: {name: round(statistics.median(each), 3) for name, each in values.items()}
            for side, values in seconds.items()
        },
        "ratios": {
            name: {"median": statistics.median(r), "turns": r} for name, r in ratios.items()
        },
    }


def draw_clips(count: int, size: tuple[int, int], folder: Path) -> list[Path]:
    from demo_world import sample_scene, write_clip

    draw = random.Random(21)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [(folder / f"{n}-{size[0]}.mp4", sample_scene(draw, "single")) for n in range(count)]
    for path, scene in drawn:
        if not path.exists():
            write_clip(scene, path, size_px=size, fps=FPS, duration_s=SECONDS, gop_frames=FPS)
    return [path for path, _ in drawn]


def run(args: argparse.Namespace) -> dict[str, Any]:
    from gpu_models import SHAPES, write

    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        model = args.model
        if model in SHAPES:
            model = str(folder / "model")
            write(args.model, folder / "model")
        per_part = 3 * (args.turns + 1) + 1
        print(f"drawing {per_part + args.memory} clips", file=sys.stderr)
        clips = draw_clips(
            per_part + args.memory, (width, height), Path(args.clips or folder / "clips")
        )
        found: dict[str, Any] = {}
        if args.only != "stack":
            command = [sys.executable, __file__, "--turns", str(args.turns), "--engine", model]
            output = subprocess.run([*command, *map(str, clips)], check=True, capture_output=True)
            found["engine"] = json.loads(output.stdout.splitlines()[-1])
        if args.only != "engine":
            found["stack"] = measure_stack(
                model, clips[:per_part], args.turns, clips[per_part:], folder / "stack"
            )
    for part in found.values():
        part.update(summarize(part.pop("turns")))
    return found | {
        "model": args.model,
        "video": f"{args.size}, {SECONDS:g} s, {FRAMES} frames",
        "tokens": TOKENS,
        "turns": args.turns,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument(
        "--model", default="medium", help="a shape of lib/gpu_models.py, `demo`, or a checkpoint"
    )
    parser.add_argument("--size", default="1280x720", help="of the videos")
    parser.add_argument("--memory", type=int, default=0, help="different videos for the memory")
    parser.add_argument("--only", choices=["engine", "stack"])
    parser.add_argument("--folder", help="where temporary files go")
    parser.add_argument("--clips", help="folder in which the videos stay for the next run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--engine", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        paths = [Path(path) for path in args.engine[1:]]
        print(json.dumps(measure_engine(args.engine[0], paths, args.turns)))
        return
    found = run(args)
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:12} {json.dumps(value)}")


if __name__ == "__main__":
    main()
