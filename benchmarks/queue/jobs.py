"""Jobs per second of a whole videoqa stack against the Hugging Face guide's loop, in turns.

    python benchmarks/queue/jobs.py [--seconds 10 60] [--jobs 32] [--turns 5] [--json]

Peer: the guide "video-text-to-text" as it is written down there, one video at a time: open the
file, decode every frame, keep every i-th, prompt, `generate`. Ours: Redis, a production worker in
its own process, jobs submitted through the client; the clock runs from the first submit to the last
result. Both hold the same model, see the same clips, ask the same question, and must give the same
answers. They take turns, so that a machine whose speed changes is the same for the two sides of a
ratio; before each turn the worker is started again, so that nothing of these clips is cached in it,
and both have answered about another clip. The ratio of CPU times tells more where others work on
the machine, though threads that spin while they wait count as busy. Neither side is told a number
of threads, unless OMP_NUM_THREADS is set.
Cold start: from starting a new Python process to the first answer, for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.processes import measure_tree, sum_cpu_s

FRAMES = 8
QUESTION = "What is moving?"


def guide(model_folder: str) -> None:
    """The guide's loop: reads a JSON list of paths a line, writes the answers, seconds and CPU seconds."""
    import av
    import numpy as np
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(model_folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model_folder)

    def sample(path: str) -> list[Any]:
        with av.open(path) as container:
            stream = container.streams.video[0]
            step = stream.frames / FRAMES
            wanted = {int(step * k) for k in range(FRAMES)}
            return [
                frame.to_ndarray(format="rgb24")
                for index, frame in enumerate(container.decode(stream))
                if index in wanted
            ]

    def answer(path: str) -> str:
        frames = [np.asarray(frame) for frame in sample(path)]
        prompt = (
            "<|im_start|>user" + "<image>" * FRAMES + f"\n{QUESTION}<|im_end|><|im_start|>assistant"
        )
        inputs = processor(text=prompt, images=frames, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=100, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        return str(processor.decode(new, skip_special_tokens=True)).strip()

    for line in sys.stdin:
        begun, cpu = time.monotonic(), time.process_time()
        answers = [answer(path) for path in json.loads(line)]
        seconds, cpu_s = time.monotonic() - begun, time.process_time() - cpu
        print(json.dumps({"answers": answers, "seconds": seconds, "cpu_s": cpu_s}), flush=True)


class Guide:
    """The guide's loop in a process of its own. A context manager: entering starts it."""

    def __init__(self, model_folder: str) -> None:
        self._command = [sys.executable, __file__, "--guide", model_folder]

    def __enter__(self) -> Guide:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def answer(self, paths: list[Path]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path) for path in paths]) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


def ours(stack: Any, client: Any, paths: list[Path]) -> dict[str, Any]:
    """Answers through the stack."""
    pids = stack.worker.pid, stack.redis.process.pid, os.getpid()
    cpu, begun = sum_cpu_s(*pids[:2]) + time.process_time(), time.monotonic()
    jobs = [
        client.submit(inputs=[path.as_uri()], questions=[QUESTION], cache="off") for path in paths
    ]
    for job in jobs:
        client.wait(job.id, timeout_s=3600)
    results = [client.result(job.id) for job in jobs]
    seconds = time.monotonic() - begun
    cpu_s = sum_cpu_s(*pids[:2]) + time.process_time() - cpu
    return {
        "answers": [result.answers[0].text for result in results],
        "seconds": seconds,
        "cpu_s": cpu_s,
        "stages": [result.usage.model_dump() for result in results],
    }


def draw_clips(count: int, seconds: float, folder: Path, draw: random.Random) -> list[Path]:
    from demo_world import sample_scene, write_clip

    folder.mkdir(parents=True)
    return [
        write_clip(
            sample_scene(draw, "single"),
            folder / f"{n}.mp4",
            size_px=(640, 360),
            duration_s=seconds,
        )
        for n in range(count)
    ]


def run(lengths: list[float], jobs: int, turns: int) -> dict[str, Any]:
    from videoqa_worker.embedded import Stack
    from videoqa_worker.settings import DEMO_MODEL_PATH

    model_folder = os.environ.get("VIDEOQA_MODEL", str(DEMO_MODEL_PATH))
    draw = random.Random(7)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environ = {"VIDEOQA_FILE_ROOTS": name, **os.environ}
        first = draw_clips(1, lengths[0], folder / "first", draw)
        begun = time.monotonic()
        with Guide(model_folder) as peer:
            peer.answer(first)
            peer_cold_s = time.monotonic() - begun
            begun = time.monotonic()
            with Stack(folder / "stack", environ) as stack, stack.client() as client:
                stack.wait_until_ready(lambda state: None)
                ours(stack, client, first)
                cold_s = time.monotonic() - begun
                sides = Sides(peer, stack, client, first)
                found = {}
                for length in lengths:
                    print(f"drawing {jobs} clips of {length:g} s", file=sys.stderr)
                    paths = draw_clips(jobs, length, folder / f"{length:g}", draw)
                    found[f"{length:g} s"] = sides.take_turns(paths, turns)
                memory = sum(use.resident_bytes for use in measure_tree(stack.worker.pid)[:1])
    return {
        "clips": found,
        "jobs": jobs,
        "frames": FRAMES,
        "videoqa_cold_start_to_answer_s": round(cold_s, 2),
        "guide_cold_start_to_answer_s": round(peer_cold_s, 2),
        "worker_resident_mb": round(memory / 1e6),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "threads": os.environ.get("OMP_NUM_THREADS", "defaults"),
        "python": platform.python_version(),
    }


class Sides:
    """The two sides, which answer about the same clips in turn."""

    def __init__(self, peer: Guide, stack: Any, client: Any, first: list[Path]) -> None:
        self._peer, self._stack, self._client, self._first = peer, stack, client, first

    def take_turns(self, paths: list[Path], turns: int) -> dict[str, Any]:
        theirs, mine = [], []
        for turn in range(turns):
            print(f"turn {turn + 1} of {turns}", file=sys.stderr)
            self._stack.restart_worker()
            self._stack.wait_until_ready(lambda state: None)
            ours(self._stack, self._client, self._first)
            if turn % 2:  # neither side always comes first
                mine.append(ours(self._stack, self._client, paths))
                theirs.append(self._peer.answer(paths))
            else:
                theirs.append(self._peer.answer(paths))
                mine.append(ours(self._stack, self._client, paths))
        return _compare(theirs, mine)


def _compare(theirs: list[dict[str, Any]], mine: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = list(zip(theirs, mine, strict=True))
    ratios = [round(their["seconds"] / my["seconds"], 2) for their, my in pairs]
    cpu_ratios = [round(their["cpu_s"] / my["cpu_s"], 2) for their, my in pairs]
    jobs = len(mine[0]["answers"])
    stages = [usage for my in mine for usage in my["stages"]]
    return {
        "same_answers": all(their["answers"] == my["answers"] for their, my in pairs),
        "ratio_by_turn": ratios,
        "ratio_median": statistics.median(ratios),
        "cpu_ratio_by_turn": cpu_ratios,
        "cpu_ratio_median": statistics.median(cpu_ratios),
        "guide_jobs_per_s": [round(jobs / their["seconds"], 2) for their in theirs],
        "videoqa_jobs_per_s": [round(jobs / my["seconds"], 2) for my in mine],
        "guide_cpu_s_per_job": [round(their["cpu_s"] / jobs, 4) for their in theirs],
        "videoqa_cpu_s_per_job": [round(my["cpu_s"] / jobs, 4) for my in mine],
        "videoqa_stage_s_median": {
            stage: round(statistics.median(one[stage] for one in stages), 4)
            for stage in stages[0]
            if stage.endswith("_s") and stages[0][stage] is not None
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=32, help="clips, each a job in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[10.0, 60.0], help="lengths of the clips"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--guide", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.guide:
        guide(args.guide)
        return
    found = run(args.seconds, args.jobs, args.turns)
    if args.json:
        print(json.dumps(found))
        return
    for length, clips in found.pop("clips").items():
        for name, value in clips.items():
            print(f"{length:>6}  {name:32} {value}")
    for name, value in found.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
