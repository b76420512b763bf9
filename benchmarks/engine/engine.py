"""The engine on the CPU: process time against `generate`, one by one and in padded batches.

    python benchmarks/engine/engine.py [--json]

A small LLaVA with random weights in float32 (`gpu_models.py`; no checkpoint is needed), one torch thread, one
process. Requests have 4 or 8 frames (short) or 16 or 32 (long), a question of their own and 4, 16 or 64 answer
tokens; three requests are about the same video. All sides get the same prepared inputs, and each side's answers
are compared token by token with single `generate`. Ratios: process time of one-by-one `generate`
over that of each. transformers' continuous batching is no peer: it takes no pictures.

Then ten questions about one 720p video: what their prompts cost against the prompt of one (one answer token
each), and what they cost with answers of 16 tokens against ten turns of the guide's loop, which prepares the
pictures with the checkpoint's own processor and calls `generate` each time. `small` has 36 tokens a frame, `narrow`
729, as the real models: 8 frames are 5,832 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("producer", "worker", "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from lib.gpu_models import build  # noqa: E402
from PIL import Image  # noqa: E402

from videoqa.contract import Generation  # noqa: E402
from videoqa_worker.engine import Engine, GenerationRequest, MediaQuestion  # noqa: E402
from videoqa_worker.engine.model.loading import LoadedModel  # noqa: E402
from videoqa_worker.prompt import FrameInput, PreparedMedia  # noqa: E402
from videoqa_worker.settings import EngineConfig  # noqa: E402

MIXES = {"short": (24, (4, 8)), "long": (18, (16, 32))}
"""Requests, and the frames they have."""
RUNS = 6
Tokens = list[list[int]]


def requests_of(loaded: LoadedModel, mix: str) -> list[GenerationRequest]:
    count, frames = MIXES[mix]
    draw = random.Random(5)
    found = []
    for n in range(count):
        media = video(n // 3, frames[n // 3 % 2])
        words = " ".join(draw.choice(["what", "moves", "where", "first"]) for _ in range(9))
        inputs = loaded.prompter.build([media], f"{words} {n}?")
        generation = Generation(max_new_tokens=draw.choice([4, 16, 64]))
        found.append(GenerationRequest(inputs, generation=generation))
    draw.shuffle(found)
    return found


def video(seed: int, frames: int) -> FrameInput:
    blocks = np.random.default_rng(seed).integers(0, 256, (frames, 6, 6, 3), dtype=np.uint8)
    return FrameInput("video", tuple(blocks.repeat(20, axis=1).repeat(20, axis=2)))


def one_by_one(loaded: LoadedModel, requests: Sequence[GenerationRequest]) -> Tokens:
    return [padded(loaded, [request])[0] for request in requests]


def in_batches(loaded: LoadedModel, requests: Sequence[GenerationRequest]) -> Tokens:
    """Sorted by length, eight together, padded on the left, as long as the longest answer."""
    order = sorted(range(len(requests)), key=lambda n: requests[n].inputs.length)
    found: dict[int, list[int]] = {}
    for first in range(0, len(order), 8):
        few = order[first : first + 8]
        answers = padded(loaded, [requests[n] for n in few])
        found |= dict(zip(few, answers, strict=True))
    return [found[n] for n in range(len(requests))]


def padded(loaded: LoadedModel, requests: Sequence[GenerationRequest]) -> Tokens:
    longest = max(request.inputs.length for request in requests)
    ids = torch.zeros(len(requests), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(requests):
        ids[row, longest - request.inputs.length :] = request.inputs.input_ids[0]
        mask[row, longest - request.inputs.length :] = 1
    pixels = [
        request.inputs.normalisations["image"](
            request.inputs.images["pixel_values"], loaded.model.device, loaded.model.dtype
        )
        for request in requests
    ]
    out = loaded.model.generate(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=torch.cat(pixels),
        do_sample=False,
        max_new_tokens=max(request.generation.max_new_tokens for request in requests),
        pad_token_id=loaded.generation.pad,
    )
    return [
        row[longest : longest + request.generation.max_new_tokens].tolist()
        for row, request in zip(out, requests, strict=True)
    ]


def by_engine(
    *, streams: bool = False, **settings: Any
) -> Callable[[LoadedModel, Sequence[GenerationRequest]], Tokens]:
    """Starts an engine that has answered as much about other videos.

    Nothing that it keeps of them is of use, but its memory has been touched, as in a worker that runs.
    Starting and closing it do not count.
    """

    def answer(loaded: LoadedModel, requests: Sequence[GenerationRequest]) -> Tokens:
        config = EngineConfig(model="random", device="cpu", cpu_threads=1, **settings)
        with Engine(config, loader=lambda *_: loaded) as engine:
            heard: list[str] = []
            if streams:
                requests = [replace(request, on_text=heard.append) for request in requests]
            for future in [engine.submit(unlike(request)) for request in requests]:
                future.result()
            CLOCK.begin()
            futures = [engine.submit(request) for request in requests]
            told = [list(future.result().tokens) for future in futures]
            CLOCK.end()
            return told

    return answer


def unlike(request: GenerationRequest) -> GenerationRequest:
    """Returns a request about the negatives of its pictures."""
    images = {**request.inputs.images}
    images["pixel_values"] = 255 - images["pixel_values"]
    return replace(request, inputs=replace(request.inputs, images=images))


def ten_questions(loaded: LoadedModel, own: Any, frames: int) -> dict[str, Any]:
    blocks = np.random.default_rng(7).integers(0, 256, (frames, 9, 16, 3), dtype=np.uint8)
    media = FrameInput("video", tuple(blocks.repeat(80, axis=1).repeat(80, axis=2)))
    questions = [f"What happens in part {n}?" for n in range(10)]
    seconds: dict[str, float] = {}
    for _ in range(RUNS):
        for name, run in {
            "one prompt": lambda: asked(loaded, media, questions[:1], 1),
            "ten prompts": lambda: asked(loaded, media, questions, 1),
            "ten answers": lambda: asked(loaded, media, questions, 16),
            "guide": lambda: guided(loaded, own, media, questions, 16),
        }.items():
            CLOCK.begin()
            run()
            seconds[name] = min(CLOCK.seconds, seconds.get(name, float("inf")))
    same = asked(loaded, media, questions, 16) == guided(loaded, own, media, questions, 16)
    return {
        "frames": frames,
        "cpu_s": {name: round(value, 3) for name, value in seconds.items()},
        "prompt_tokens": loaded.prompter.build([media], questions[0]).length,
        "prompts_of_ten_against_one": round(seconds["ten prompts"] / seconds["one prompt"], 2),
        "guide_against_ten": round(seconds["guide"] / seconds["ten answers"], 2),
        "same_answers": same,
    }


def asked(loaded: LoadedModel, media: FrameInput, questions: Sequence[str], tokens: int) -> Tokens:
    """Asks as a job of so many questions does, of an engine that has answered them about another video."""
    config = EngineConfig(model="random", device="cpu", cpu_threads=1, max_batch=10)
    other = replace(media, frames=tuple(255 - frame for frame in media.frames))
    generation = Generation(max_new_tokens=tokens)
    with Engine(config, loader=lambda *_: loaded) as engine:
        for shown in (other, media):
            CLOCK.begin()
            prepared = PreparedMedia([shown])
            futures = [
                engine.ask(MediaQuestion(prepared, question, generation=generation))
                for question in questions
            ]
            told = [list(future.result().tokens) for future in futures]
            CLOCK.end()
    return told


def guided(
    loaded: LoadedModel, own: Any, media: FrameInput, questions: Sequence[str], tokens: int
) -> Tokens:
    """The Hugging Face video guide's way, once a question."""
    found = []
    for question in questions:
        content = [*({"type": "image"} for _ in media.frames), {"type": "text", "text": question}]
        prompt = own.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        images = [Image.fromarray(frame) for frame in media.frames]
        inputs = own(text=[prompt], images=[images], return_tensors="pt")
        out = loaded.model.generate(
            **inputs, do_sample=False, max_new_tokens=tokens, pad_token_id=loaded.generation.pad
        )
        found.append(out[0, inputs["input_ids"].shape[1] :].tolist())
    return found


SIDES: dict[str, Callable[[LoadedModel, Sequence[GenerationRequest]], Tokens]] = {
    "generate, one by one": one_by_one,
    "generate, batches of 8": in_batches,
    "videoqa, slots": by_engine(
        max_batch=8, feature_cache_bytes=0, prefix_cache_bytes=0, pack_from_tokens=None
    ),
    "videoqa, slots, reuse": by_engine(max_batch=8),
    "videoqa, slots, reuse, text streamed": by_engine(max_batch=8, streams=True),
    "videoqa, 16 slots, reuse": by_engine(max_batch=16),
}


class Clock:
    """Process time; to the end that somebody said, else to now."""

    def begin(self) -> None:
        self._begun, self._ended = time.process_time(), None

    def end(self) -> None:
        self._ended: float | None = time.process_time()

    @property
    def seconds(self) -> float:
        return (self._ended or time.process_time()) - self._begun


CLOCK = Clock()


def measured(loaded: LoadedModel, mix: str) -> dict[str, Any]:
    requests = requests_of(loaded, mix)
    lengths = [request.inputs.length for request in requests]
    expected = one_by_one(loaded, requests)
    seconds: dict[str, float] = {}
    same: dict[str, int] = {}
    for _ in range(RUNS):  # by turns, so that a busy minute meets all
        for name, answer in SIDES.items():
            CLOCK.begin()
            told = answer(loaded, requests)
            seconds[name] = min(CLOCK.seconds, seconds.get(name, float("inf")))
            same[name] = sum(a == b for a, b in zip(told, expected, strict=True))
    base = seconds["generate, one by one"]
    return {
        "requests": len(requests),
        "prompt_tokens": [min(lengths), max(lengths)],
        "answer_tokens": sum(len(tokens) for tokens in expected),
        "distinct": len({tuple(tokens) for tokens in expected}),
        "sides": {
            name: {
                "cpu_s": round(value, 3),
                "ratio": round(base / value, 2),
                "identical": same[name],
            }
            for name, value in seconds.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        device = torch.device("cpu")
        loaded, _ = build("small", device, torch.float32)
        found: dict[str, Any] = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "load": os.getloadavg()[0],
            "mixes": {mix: measured(loaded, mix) for mix in MIXES},
            "ten_questions": [
                {"model": name, **ten_questions(*build(name, device, torch.float32), frames)}
                for name, frames in (("small", 32), ("narrow", 8))
            ],
        }
    if args.json:
        print(json.dumps(found))
        return
    for mix, part in found["mixes"].items():
        print(f"{mix}: {part['requests']} requests, prompts of {part['prompt_tokens']} tokens, "
              f"{part['answer_tokens']} answer tokens, {part['distinct']} distinct answers")  # fmt: skip
        for name, side in part["sides"].items():
            print(f"  {name:36} {side['cpu_s']:7.2f} CPU s {side['ratio']:5.2f}x  "
                  f"{side['identical']}/{part['requests']} identical")  # fmt: skip
    for part in found["ten_questions"]:
        print(f"ten questions, {part['model']}, {part['frames']} frames: prompts {part['prompts_of_ten_against_one']}x "
              f"those of one; guide's loop {part['guide_against_ten']}x the cost; same answers: "
              f"{part['same_answers']}; CPU s: {part['cpu_s']}")  # fmt: skip


if __name__ == "__main__":
    main()
