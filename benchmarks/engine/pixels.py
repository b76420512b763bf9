"""Time a frame from a decoded picture to the model's input tensor, in one run, on one torch thread.

    python benchmarks/engine/pixels.py [--repeat 15] [--frames 8] [--json]

Peer: the guide's way: `frame.to_ndarray(format="rgb24")`, a PIL image, the checkpoint's processor,
float32 out. Ours: `frames.picture.converter.RgbConverter`, the worker's prompter, and the normalisation that is left
to the device, here on the CPU: the same float32 tensor. Both get the same decoded H.264 pictures,
both write the prompt too, and both make pictures of 384 x 384 with SigLIP's settings, 729 tokens
each. CPU time is that of the whole process; of each figure the least of the repetitions counts,
since others may be using the machine. `convert` is the part of RGB in each.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import transformers
from PIL import Image
from PIL import __version__ as pillow_version
from transformers import AutoConfig, AutoProcessor

from videoqa_worker.engine import load_processor
from videoqa_worker.frames.picture.colour.colour_converter import ColourConverter
from videoqa_worker.frames.picture.converter import RgbConverter
from videoqa_worker.frames.picture.shape import DeclaredShape, ShapeRule
from videoqa_worker.prompt import FrameInput, Prompter
from videoqa_worker.settings import DEMO_MODEL_PATH

sys.path.append(str(Path(__file__).resolve().parents[2] / "training"))
from demo_world import sample_scene, write_clip

SIZES_PX = {"1080p": (1920, 1080), "720p": (1280, 720)}
EDGE = 384
QUESTION = "What is moving?"


def checkpoint(folder: Path) -> Path:
    """The bundled model's files without weights, its processor as SigLIP so400m/14 has it."""
    shutil.copytree(DEMO_MODEL_PATH, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    file = folder / "processor_config.json"
    stated = json.loads(file.read_text())
    stated["image_processor"]["size"] = {"height": EDGE, "width": EDGE}
    file.write_text(json.dumps(stated | {"patch_size": 14}))
    return folder


def pictures(size_px: tuple[int, int], count: int, folder: Path) -> list[av.VideoFrame]:
    path = write_clip(
        sample_scene(random.Random(3)),
        folder / f"{size_px[1]}.mp4",
        size_px=size_px,
        duration_s=1.0,
        noise=6.0,
    )
    with av.open(str(path)) as container:
        return list(container.decode(video=0))[:count]


class Guide:
    """RGB, PIL, the processor of the checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._processor = AutoProcessor.from_pretrained(folder)

    def convert(self, frames: list[av.VideoFrame]) -> list[np.ndarray]:
        return [frame.to_ndarray(format="rgb24") for frame in frames]

    def __call__(self, frames: list[av.VideoFrame]) -> torch.Tensor:
        images = [Image.fromarray(array) for array in self.convert(frames)]
        prompt = (
            "<|im_start|>user"
            + "<image>" * len(images)
            + f"\n{QUESTION}<|im_end|><|im_start|>assistant"
        )
        pixels: torch.Tensor = self._processor(text=prompt, images=images, return_tensors="pt")[
            "pixel_values"
        ]
        return pixels


class Ours:
    """The worker's own parts, from the decoded picture to what the vision tower is called with."""

    def __init__(self, folder: Path) -> None:
        config = AutoConfig.from_pretrained(folder)
        config.get_text_config().max_position_embeddings = 10**6
        self._prompter = Prompter(load_processor(str(folder), config), config)

    def convert(self, frames: list[av.VideoFrame]) -> list[np.ndarray]:
        converter = RgbConverter(ShapeRule(DeclaredShape(), max_pixels=1 << 30), ColourConverter())
        return [converter.convert(frame) for frame in frames]

    def __call__(self, frames: list[av.VideoFrame]) -> torch.Tensor:
        inputs = self._prompter.build([FrameInput("video", tuple(self.convert(frames)))], QUESTION)
        normalise = inputs.normalisations["image"]
        return normalise(inputs.images["pixel_values"], torch.device("cpu"), torch.float32)


def timed(does: Callable[[], Any], frames: int) -> tuple[float, float]:
    """CPU and wall milliseconds a frame."""
    cpu, wall = time.process_time(), time.perf_counter()
    does()
    return (
        (time.process_time() - cpu) * 1e3 / frames,
        (time.perf_counter() - wall) * 1e3 / frames,
    )


def measure(frames: list[av.VideoFrame], guide: Guide, ours: Ours, repeat: int) -> dict[str, Any]:
    parts: dict[str, Callable[[], Any]] = {
        "guide": lambda: guide(frames),
        "ours": lambda: ours(frames),
        "guide_convert": lambda: guide.convert(frames),
        "ours_convert": lambda: ours.convert(frames),
    }
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    for does in parts.values():
        does()  # warm
    for _ in range(repeat):  # in turn, so that a busy minute is busy for all
        for name, does in parts.items():
            runs[name].append(timed(does, len(frames)))
    found: dict[str, Any] = {}
    for name, times in runs.items():
        for clock, values in zip(("cpu", "wall"), zip(*times, strict=True), strict=True):
            found[f"{name}_{clock}_ms"] = round(min(values), 2)
    for clock in ("cpu", "wall"):
        ratio = found[f"ours_{clock}_ms"] / found[f"guide_{clock}_ms"]
        found[f"{clock}_ratio"] = round(ratio, 3)
    apart = (ours(frames) - guide(frames)).abs() / 2  # normalised to -1..1
    found["mean_apart_of_255"] = round(apart.mean().item() * 255, 4)
    found["most_apart_of_255"] = round(apart.max().item() * 255, 2)
    return found


def run(repeat: int, count: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = checkpoint(Path(name) / "model")
        guide, ours = Guide(folder), Ours(folder)
        found: dict[str, Any] = {
            title: measure(pictures(size, count, Path(name)), guide, ours, repeat)
            for title, size in SIZES_PX.items()
        }
    found["frames"] = count
    found["repeat"] = repeat
    found["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pillow": pillow_version,
        "av": av.__version__,
    }
    found["cpu"] = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--frames", type=int, default=8, help="pictures of one question")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = run(args.repeat, args.frames)
    if args.json:
        print(json.dumps(found))
        return
    for name in SIZES_PX:
        print(f"{name}, a frame:")
        for key, value in found[name].items():
            print(f"  {key:24} {value}")


if __name__ == "__main__":
    main()
