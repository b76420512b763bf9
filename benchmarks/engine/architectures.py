"""Measure what each architecture of the table of models costs, against its own `generate` one question at a time.

    PYTHONPATH=.venv/torchvision python benchmarks/engine/architectures.py [--turns 5] [--types qwen2_vl ...] [--json]

Peer: transformers' `generate` on the same inputs, one question after the other. Both get eight questions about four
frames each, as a video where the type takes one: four about different frames, four about the same. The engine gets
all at once, with its default path for the type, and empty caches in each turn. Tiny models with random weights (0.2 M
parameters): their arithmetic costs nothing beside the calls, so the figures tell what is saved of those. Answers have
to be equal, token by token. CPU time is that of the process on one torch thread, without preparing pixels; the sides
take turns, and the figure is the median of the turns' ratios.

Llama 4 is left out: its processor makes pixels in bfloat16, which the reference here does not convert.
Types that need torchvision are measured with its packages on the path (`sh .ci/fetch_torchvision.sh`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from videoqa_worker.engine import Engine  # before transformers, as a worker does

# isort: split
import torch
from support.architectures import ARCHITECTURES, BEGINNING, WINDOWS
from support.engine import Reference, answers, ask
from support.extra_models import EXTRAS
from support.models import clip, write_checkpoint
from support.other_models import write_model
from support.video_models import VIDEOS, write_video_model

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.settings import EngineConfig

QUESTIONS = ("Why is that?", "What is it?", "Who runs, and where to?", "And then?")
TOKENS = 24
FRAMES = 4
LLAVA = {
    "llava": "interleave",
    "llava_next": "next",
    "llava_next_video": "next_video",
    "llava_onevision": "onevision",
    "video_llava": "video_llava",
}
"""Types of the LLaVA family, and the tests' names of their checkpoints."""


def write(name: str, folder: Path) -> Path:
    if name in LLAVA:
        return write_checkpoint(LLAVA[name], folder)
    if name in VIDEOS:
        return write_video_model(name, folder)
    made: dict[str, Any] = {**ARCHITECTURES, **EXTRAS, **WINDOWS}
    return write_model(made[name], folder, bos=name in BEGINNING)


def make_requests(engine: Engine) -> list[Any]:
    wide = {"height": 60, "width": 100}
    videos = [clip(n, FRAMES, **wide) for n in (0, 1, 2, 3, 9, 9, 9, 9)]
    asked = zip(videos, QUESTIONS * 2, strict=True)
    return [ask(engine, [video], text, max_new_tokens=TOKENS) for video, text in asked]


def compare(name: str, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = write(name, Path(temporary))
        options: dict[str, Any] = {
            "device": "cpu",
            "cpu_threads": 1,
            "max_batch": 8,
            "batch_wait_s": 0.3,
        }
        config = EngineConfig(
            model=str(folder), max_batch_tokens=8192, pack_from_tokens=64, **options
        )
        with Engine(config) as engine:
            return {"type": name, **_measure(engine, Reference(folder), turns)}


def _measure(engine: Engine, reference: Reference, turns: int) -> dict[str, Any]:
    requests = make_requests(engine)
    sides = {
        "ours": lambda: [one.tokens for one in answers(engine, requests)],
        "generate": torch.inference_mode()(
            lambda: [reference.tokens(request) for request in requests]
        ),
    }
    spent: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(turns + 1):
        found = {}
        for side in sides if turn % 2 else reversed(sides):
            engine.clear_caches()
            begun = time.process_time()
            found[side] = sides[side]()
            if turn:  # the first one warms up
                spent[side].append(time.process_time() - begun)
        if found["ours"] != found["generate"]:
            raise SystemExit(f"{engine.model_id}: the answers differ")
    ratios = [ours / theirs for ours, theirs in zip(*spent.values(), strict=True)]
    return {
        "path": "slots" if isinstance(engine._runner, ContinuousRunner) else "generate",
        "video": not engine.warn_of(requests_media()) and engine.prompter.takes_videos,
        "parameters": sum(one.numel() for one in engine._loaded.model.parameters()),
        "prompt_tokens": requests[0].inputs.length,
        "answer_tokens": sum(map(len, found["ours"])),
        **{f"{side}_s": round(statistics.median(times), 3) for side, times in spent.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def requests_media() -> list[Any]:
    return [clip(0, FRAMES)]


def main() -> None:
    types = sorted({*LLAVA, *ARCHITECTURES, *EXTRAS, *VIDEOS, "llava_window"} - {"llama4"})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--types", nargs="+", choices=types, default=types, metavar="TYPE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.types:
        try:
            row = compare(name, options.turns)
        except (ConfigurationError, ImportError) as error:
            print(f"{name}: skipped, {error}", file=sys.stderr)
            continue
        print(json.dumps(row) if options.json else _describe(row), flush=True)


def _describe(row: dict[str, Any]) -> str:
    return (
        f"{row['type']:22} {row['path']:9} {'video' if row['video'] else 'images':7} ours {row['ours_s']:6.3f} s  "
        f"generate {row['generate_s']:6.3f} s  ratio {row['ratio']:.2f}  by turn {row['ratios']}"
    )


if __name__ == "__main__":
    main()
