"""Evaluation of the demo model on held-out clips as in use: real files, the project's sampler.

    python training/demo_model/evaluate.py --clips 300 --seed 7 --frames 4 6 8 12 --json

Clips of random size, rate, length and quality are written as mp4, sampled back, and put to the
model through its own processor and chat template; answers are greedy, in fp32. An answer counts as
right when its text is exactly the expected one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.utils import logging

import videoqa_worker.demo
from videoqa.contract import Sampling
from videoqa_worker.frames import sample_frames

sys.path.insert(0, str(Path(__file__).parents[1]))
from demo_world import (
    Question,
    Scene,
    compare_questions,
    questions,
    sample_pair,
    sample_scene,
    write_clip,
)

MODEL_DIR = Path(videoqa_worker.demo.__file__).parent / "model"
_SIZES_PX = ((160, 160), (224, 224), (320, 240), (320, 180), (180, 320), (426, 240), (640, 360))
_PAIR_EVERY = 5
_SHOWN_MISTAKES = 20


@dataclass
class Tally:
    """Counts of right answers and of answers, by kind."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    mistakes: list[str] = field(default_factory=list)

    def count(self, kind: str, question: Question, said: str) -> None:
        """Adds one answer."""
        self.asked[kind] += 1
        if said == question.answer:
            self.right[kind] += 1
        else:
            self.mistakes.append(f"{kind}: {question.text!r} -> {said!r}, not {question.answer!r}")

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Returns {kind: {"accuracy": 0..1, "asked": n}}."""
        return {
            kind: {"accuracy": round(self.right[kind] / count, 4), "asked": count}
            for kind, count in sorted(self.asked.items())
        }


class DemoModel:
    """The checkpoint, loaded as anyone would load it."""

    def __init__(self, folder: Path) -> None:
        logging.disable_progress_bar()
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self._model.eval()

    @torch.no_grad()
    def answers(self, contents: list[list[dict[str, Any]]]) -> list[str]:
        """Returns a greedy answer to each user message; they run in one left-padded batch."""
        inputs = self._processor.apply_chat_template(
            [[{"role": "user", "content": content}] for content in contents],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        tokens = self._model.generate(**inputs, max_new_tokens=48, do_sample=False)
        said = tokens[:, inputs["input_ids"].shape[1] :]
        return [
            text.strip() for text in self._processor.batch_decode(said, skip_special_tokens=True)
        ]


def images(frames: list[np.ndarray]) -> list[dict[str, Any]]:
    """Returns content items of uint8[H, W, 3] frames."""
    return [{"type": "image", "image": frame} for frame in frames]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def film(scene: Scene, folder: Path, rng: random.Random) -> Path:
    """Writes the scene with a size, rate, length and quality drawn by `rng`."""
    return write_clip(
        scene,
        folder / f"{rng.getrandbits(48):x}.mp4",
        size_px=rng.choice(_SIZES_PX),
        fps=rng.choice((10, 12, 15)),
        duration_s=rng.uniform(2.0, 5.0),
        crf=rng.choice((18, 23, 28, 33)),
        noise=rng.choice((0.0, 0.0, 3.0, 6.0)),
        seed=rng.getrandbits(31),
    )


def sample_content(path: Path, count: int) -> list[dict[str, Any]]:
    """Returns `count` frames of the file as content items."""
    return images([frame.pixels for frame in sample_frames(path, Sampling(frames=count)).frames])


def put(
    model: DemoModel,
    tally: Tally,
    before: list[dict[str, Any]],
    asked: list[Question],
    suffix: str = "",
) -> None:
    """Asks all questions about the same content, and counts the answers."""
    said = model.answers([[*before, text(question.text)] for question in asked])
    for question, answer in zip(asked, said, strict=True):
        tally.count(question.kind + suffix, question, answer)


def evaluate(
    model: DemoModel, clips: int, seed: int, frame_counts: list[int]
) -> Iterator[tuple[int, Tally]]:
    """Yields (frames per video, tally) of the same clips at each frame count.

    Every fifth is a pair of clips, asked in two layouts: frames after frames with no word between,
    as in the guide, and with "first video" and "second video" before them (`..._named`).
    """
    tallies = {count: Tally() for count in frame_counts}
    rng = random.Random(f"evaluate {seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(clips):
            if number % _PAIR_EVERY == _PAIR_EVERY - 1:
                _ask_pair(model, tallies, folder, rng)
            else:
                _ask_one(model, tallies, folder, rng)
    yield from tallies.items()


def _ask_one(model: DemoModel, tallies: dict[int, Tally], folder: Path, rng: random.Random) -> None:
    scene = sample_scene(rng)
    path = film(scene, folder, rng)
    asked = questions(scene, rng)
    for count, tally in tallies.items():
        put(model, tally, sample_content(path, count), asked)
    path.unlink()


def _ask_pair(
    model: DemoModel, tallies: dict[int, Tally], folder: Path, rng: random.Random
) -> None:
    scenes = sample_pair(rng)
    paths = [film(scene, folder, rng) for scene in scenes]
    asked = compare_questions(*scenes, rng)
    for count, tally in tallies.items():
        first, second = (sample_content(path, count) for path in paths)
        put(model, tally, [*first, *second], asked)
        named = [text("first video"), *first, text("second video"), *second]
        put(model, tally, named, asked, "_named")
    for path in paths:
        path.unlink()


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="folder of the checkpoint")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--frames", type=int, nargs="+", default=[8], help="frames a video")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--mistakes", action="store_true", help="show some wrong answers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    model = DemoModel(given.model)
    found = dict(evaluate(model, given.clips, given.seed, given.frames))
    if given.json:
        report = {count: tally.by_kind() for count, tally in found.items()}
        print(json.dumps({"clips": given.clips, "seed": given.seed, "frames": report}))
        return
    print_table(found)
    if given.mistakes:
        print(
            *[line for tally in found.values() for line in tally.mistakes][:_SHOWN_MISTAKES],
            sep="\n",
        )
    print(f"{given.clips} clips, seed {given.seed}, {time.monotonic() - started:.0f} s")


def print_table(found: dict[int, Tally]) -> None:
    """Prints a markdown table: a row for each kind, a column for each frame count."""
    kinds = sorted({kind for tally in found.values() for kind in tally.asked})
    print("| kind | asked | " + " | ".join(f"{count} frames" for count in found) + " |")
    print("|---|---|" + "---|" * len(found))
    for kind in kinds:
        rates = [tally.right[kind] / max(1, tally.asked[kind]) for tally in found.values()]
        asked = next(iter(found.values())).asked[kind]
        print(f"| {kind} | {asked} | " + " | ".join(f"{rate:.1%}" for rate in rates) + " |")


if __name__ == "__main__":
    main()
