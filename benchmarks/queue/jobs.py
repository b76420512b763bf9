"""Jobs per second of a whole videoqa stack against the Hugging Face guide's loop, in one run.

    python benchmarks/queue/jobs.py [--jobs 48] [--seconds 10] [--json]

Peer: the guide "video-text-to-text" as it is written down there, one video at a time: open the
file, decode every frame, keep every i-th, prompt, `generate`. Ours: Redis, a production worker in
its own process, jobs submitted through the client; the clock runs from the first submit to the last
result object. Both hold the same model, see the same clips, ask the same question, and must give
the same answers. Cold start: from starting a new Python process to the first answer, for both.
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

sys.path.append(str(Path(__file__).resolve().parents[2] / "training"))

FRAMES = 8
QUESTION = "What is moving?"


def guide(paths: list[Path], model_folder: str) -> tuple[list[str], float]:
    """The guide's loop; returns the answers and the seconds it took, without loading the model."""
    import av
    import numpy as np
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(model_folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model_folder)

    def sample(path: Path) -> list[Any]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            step = stream.frames / FRAMES
            wanted = {int(step * k) for k in range(FRAMES)}
            return [
                frame.to_ndarray(format="rgb24")
                for index, frame in enumerate(container.decode(stream))
                if index in wanted
            ]

    def answer(path: Path) -> str:
        frames = [np.asarray(frame) for frame in sample(path)]
        prompt = (
            "<|im_start|>user" + "<image>" * FRAMES + f"\n{QUESTION}<|im_end|><|im_start|>assistant"
        )
        inputs = processor(text=prompt, images=frames, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=100, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        return str(processor.decode(new, skip_special_tokens=True)).strip()

    answer(paths[0])  # warm, as our worker is
    begun = time.monotonic()
    answers = [answer(path) for path in paths]
    return answers, time.monotonic() - begun


def ours(paths: list[Path], folder: Path) -> dict[str, Any]:
    """Answers through a whole stack, and measures its cold start."""
    from videoqa_worker.embedded import Stack

    begun = time.monotonic()
    with Stack(folder, dict(os.environ)) as stack, stack.client() as client:
        stack.wait_until_ready(lambda state: None)
        first = client.submit(inputs=[paths[0].as_uri()], questions=[QUESTION], cache="off")
        client.wait(first.id, timeout_s=60)
        cold_s = time.monotonic() - begun
        begun = time.monotonic()
        jobs = [
            client.submit(inputs=[path.as_uri()], questions=[QUESTION], cache="off")
            for path in paths
        ]
        submitted_s = time.monotonic() - begun
        for job in jobs:
            client.wait(job.id, timeout_s=600)
        seconds = time.monotonic() - begun
        results = [client.result(job.id) for job in jobs]
        latency = [client.result(first.id).usage.generating_s]
        return {
            "answers": [result.answers[0].text for result in results],
            "seconds": seconds,
            "submit_s": submitted_s,
            "cold_s": cold_s,
            "single_generating_s": latency[0],
            "sampling_s_median": statistics.median(r.usage.sampling_s for r in results),
        }


def clips(count: int, seconds: float, folder: Path) -> list[Path]:
    from demo_world import sample_scene, write_clip

    rng = random.Random(7)
    return [
        write_clip(
            sample_scene(rng, "single"), folder / f"{n}.mp4", size_px=(640, 360), duration_s=seconds
        )
        for n in range(count)
    ]


def run(jobs: int, seconds: float) -> dict[str, Any]:
    from videoqa_worker.settings import DEMO_MODEL_PATH

    model_folder = os.environ.get("VIDEOQA_MODEL", str(DEMO_MODEL_PATH))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"drawing {jobs} clips of {seconds:g} s", file=sys.stderr)
        paths = clips(jobs, seconds, folder)
        print("the guide's loop, in a process of its own", file=sys.stderr)
        begun = time.monotonic()
        command = [sys.executable, __file__, "--guide", model_folder, *map(str, paths)]
        peer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        peer_total_s = time.monotonic() - begun
        print("the stack", file=sys.stderr)
        mine = ours(paths, folder / "stack")
    same = sum(a == b for a, b in zip(mine["answers"], peer["answers"], strict=True))
    return {
        "jobs": jobs,
        "clip_s": seconds,
        "frames": FRAMES,
        "same_answers": same,
        "guide_jobs_per_s": round(jobs / peer["seconds"], 2),
        "videoqa_jobs_per_s": round(jobs / mine["seconds"], 2),
        "ratio": round(peer["seconds"] / mine["seconds"], 2),
        "submits_per_s": round(jobs / mine["submit_s"]),
        "videoqa_cold_start_to_answer_s": round(mine["cold_s"], 2),
        "guide_cold_start_to_answer_s": round(peer_total_s - peer["seconds"], 2),
        "sampling_s_median": mine["sampling_s_median"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--guide", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.guide:
        answers, seconds = guide([Path(path) for path in args.guide[1:]], args.guide[0])
        print(json.dumps({"answers": answers, "seconds": seconds}))
        return
    found = run(args.jobs, args.seconds)
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
