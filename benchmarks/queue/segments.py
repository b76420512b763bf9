"""An hour of video in segments: one job, a job a segment, and the guide's loop, in one run.

    python benchmarks/queue/segments.py [--minutes 60] [--vtt FILE] [--json]

The film has a scene of 10 s after the other, each a shape that moves; a segment is a scene, and what is
truly in it is known. Guide: the Hugging Face guide's code as one would write it for a long video: one
pass that decodes every picture, keeps 8 a segment, and calls `generate` for each segment. Ours: Redis, a
production worker in its own process with one torch thread, and a client; as one job with the sampling
`segment`, and as a job for each segment's clip. All hold the bundled demo model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker", "training")]

FRAMES, SCENE_S, FPS = 8, 10, 12
QUESTION = "Describe the video."


def film(path: Path, scenes: int) -> list[str]:
    """Writes the film; returns what is truly in each scene."""
    from demo_world import describe, sample_scene, write_clip

    rng = random.Random(1)
    drawn = [sample_scene(rng, "single") for _ in range(scenes)]
    write_clip(drawn, path, fps=FPS, duration_s=SCENE_S)
    return [describe(scene) for scene in drawn]


def guide(path: Path, scenes: int) -> tuple[list[str], float]:
    import av
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from videoqa_worker.settings import DEMO_MODEL_PATH

    torch.set_num_threads(1)
    model = LlavaForConditionalGeneration.from_pretrained(DEMO_MODEL_PATH).eval()
    processor = AutoProcessor.from_pretrained(DEMO_MODEL_PATH)
    content = [{"type": "image"}] * FRAMES + [{"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )

    def answer(frames: list[Any]) -> str:
        inputs = processor(text=prompt, images=frames, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=100, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        return str(processor.decode(new, skip_special_tokens=True)).strip()

    a_scene = SCENE_S * FPS
    wanted = {k * a_scene // FRAMES for k in range(FRAMES)}
    begun, answers, frames = time.monotonic(), [], []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(container.streams.video[0])):
            if index % a_scene in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == FRAMES:
                answers.append(answer(frames))
                frames = []
    return answers, time.monotonic() - begun


def ours(path: Path, scenes: int, folder: Path) -> dict[str, tuple[Any, float]]:
    from videoqa_worker.embedded import Stack

    asked = {"questions": [QUESTION], "cache": "off", "priority": "bulk", "timeout_s": 3600}
    environ = {**os.environ, "VIDEOQA_CPU_THREADS": "1"}
    with Stack(folder, environ) as stack, stack.client() as client:
        stack.wait_until_ready(lambda state: None)
        begun = time.monotonic()
        job = client.submit(
            inputs=[path.as_uri()],
            sampling={"method": "segment", "segment_s": SCENE_S, "frames": FRAMES},
            **asked,
        )
        client.wait(job.id)
        one = client.result(job.id), time.monotonic() - begun
        clips = [
            {"url": path.as_uri(), "start": n * SCENE_S, "end": (n + 1) * SCENE_S}
            for n in range(scenes)
        ]
        begun = time.monotonic()
        jobs = client.submit_many(
            [{"inputs": [clip], "sampling": {"frames": FRAMES}, **asked} for clip in clips]
        )
        for each in jobs:
            client.wait(each.id)
        results = [client.result(each.id) for each in jobs]
        return {"one job": one, "a job a segment": (results, time.monotonic() - begun)}


def measure(minutes: float, vtt: Path | None) -> dict[str, Any]:
    from videoqa.contract import as_vtt, make_cues

    scenes = round(minutes * 60 / SCENE_S)
    with tempfile.TemporaryDirectory(prefix="videoqa-segments-") as name:
        path = Path(name) / "film.mp4"
        truths = film(path, scenes)
        answers, guide_s = guide(path, scenes)
        found = ours(path, scenes, Path(name) / "stack")
        size_bytes = path.stat().st_size
    result, one_s = found["one job"]
    if vtt is not None:
        vtt.write_text(as_vtt(make_cues(result)))
    told = {
        "the guide's loop": (answers, guide_s),
        "one job": ([part.text for part in result.segments], one_s),
        "a job a segment": (
            [each.answers[0].text for each in found["a job a segment"][0]],
            found["a job a segment"][1],
        ),
    }
    return {
        "minutes": minutes,
        "segments": scenes,
        "size_bytes": size_bytes,
        "ways": {
            way: {
                "seconds": round(seconds, 2),
                "right": sum(map(str.__eq__, texts, truths)),
                "as_the_guide": sum(map(str.__eq__, texts, answers)),
                "of_the_guide": round(guide_s / seconds, 2),
            }
            for way, (texts, seconds) in told.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--vtt", type=Path, help="also write the one job's subtitles here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = measure(args.minutes, args.vtt)
    if args.json:
        print(json.dumps(found))
        return
    print(f"{found['minutes']:g} minutes, {found['segments']} segments, {FRAMES} frames each")
    for way, row in found["ways"].items():
        print(
            f"{way:18} {row['seconds']:8.1f} s  {row['of_the_guide']:5.2f} x  {row['right']} right, "
            f"{row['as_the_guide']} as the guide's"
        )


if __name__ == "__main__":
    main()
