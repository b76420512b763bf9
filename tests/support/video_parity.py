"""A program: asks tiny models about videos, by the engine and by transformers alone; prints a JSON line for each.

python -m support.video_parity FOLDER [all]
"""

from __future__ import annotations

from videoqa_worker.engine import Engine, load_processor  # before transformers, as a worker does

# isort: split
import json
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import (
    PROCESSOR_MAPPING_NAMES,
    processor_class_from_name,
)

from support.engine import answers, ask
from support.models import clip, picture
from support.newer_video_models import ALIKE, NEWER
from support.video_models import VIDEOS, write_video_model
from videoqa.errors import FrameLimitUnmet
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.prompt import FrameInput, PictureLimits, Prompter
from videoqa_worker.settings import EngineConfig

__all__ = ["BRIEF", "CASES"]

QUESTION = "What is it?"
FPS, LENGTH_S = 25, 20.0


def _video(seed: int, *times_s: float) -> FrameInput:
    return replace(clip(seed, len(times_s)), pts_s=times_s, duration_s=LENGTH_S)


CASES = {
    "a video": [_video(1, 0.0, 5.0, 10.0, 15.0)],
    "an odd number of frames": [_video(2, 0.0, 0.52, 12.0)],
    "one frame": [_video(5, 4.4)],
    "an image between two videos": [_video(3, 0.0, 10.0), picture(9), _video(4, 61.0, 71.0)],
    "two lengths": [_video(6, 0.0, 1.0), _video(7, 2.0, 7.0, 12.0, 17.0)],
}


BY_TORCHVISION = ("perception_lm", "molmo2", "gemma4_unified")
"""Types that have images by torchvision only."""
BRIEF = ("a video", "an image between two videos")
"""Cases for types whose processors are like those of others."""


def _expand(media: list[FrameInput]) -> Iterator[FrameInput]:
    """Yields each frame of a video as an image."""
    for item in media:
        for frame in item.frames:
            yield FrameInput("image", (frame,))


def _describe(video: FrameInput) -> dict[str, Any]:
    """Returns what a decoder tells of a video of a constant rate of which these frames were sampled."""
    times_s = video.pts_s or ()
    apart_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1) if len(times_s) > 1 else LENGTH_S
    return {
        "total_num_frames": round(len(times_s) * apart_s * FPS),
        "fps": float(FPS),
        "duration": LENGTH_S,
        "frames_indices": [round(time_s * FPS) for time_s in times_s],
    }


def _encode(own: Any, media: list[FrameInput]) -> Any:
    """Encodes a question by the processor's own chat template and call."""
    content = [{"type": item.kind} for item in media] + [{"type": "text", "text": QUESTION}]
    prompt = own.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    images = [Image.fromarray(item.frames[0]) for item in media if item.kind == "image"]
    videos = [item for item in media if item.kind == "video"]
    settings = {"video_metadata": [*map(_describe, videos)], "do_sample_frames": False}
    return own(
        text=[prompt],
        images=[images] if images else None,
        videos=[np.stack(video.frames) for video in videos] or None,
        videos_kwargs=settings if videos else {},
        return_tensors="pt",
    )


def _compare(engine: Engine, own: Any, model: Any, media: list[FrameInput]) -> dict[str, Any]:
    request = ask(engine, media, QUESTION, max_new_tokens=12)
    ours = list(answers(engine, [request])[0].tokens)
    warnings = [warning.code for warning in engine.warn_of(media)]
    if warnings:
        media = list(_expand(media))
    elif engine.prompter._encoder.least_frames > len(media[0].frames):
        (video,) = media
        media = [replace(video, frames=video.frames * 2, pts_s=(video.pts_s or ()) * 2)]
    expected = _encode(own, media)
    with torch.inference_mode():
        ids = model.generate(**expected, max_new_tokens=12, do_sample=False)
    return {
        "ours": ours,
        "theirs": ids[0, expected["input_ids"].shape[1] :].tolist(),
        "prompt": own.tokenizer.decode(expected["input_ids"][0]),
        "same_prompt": torch.equal(request.inputs.input_ids, expected["input_ids"]),
        "differing": [
            name
            for name, value in request.inputs.images.items()
            if not torch.allclose(value, torch.as_tensor(expected[name]))
        ],
        "tokens": request.inputs.length,
        "counted": engine.prompter.count_tokens(media, QUESTION),
        "warnings": warnings,
    }


def _limit(engine: Engine) -> dict[str, Any]:
    """Asks about a larger video with limits of a frame."""
    media = clip(1, 4, height=120, width=200)
    plain = ask(engine, [media], QUESTION).inputs
    most = plain.media_tokens // 4 - 1
    try:
        limited = [replace(media, limits=PictureLimits(max_tokens=most))]
        found = ask(engine, limited, QUESTION)
    except FrameLimitUnmet as error:
        return {"refused": error.code}
    return {
        "refused": None,
        "fewer": found.inputs.media_tokens <= most * 4,
        "most": found.inputs.media_tokens * 2 > most * 4,
        "counted": engine.prompter.count_tokens(limited, QUESTION) == found.inputs.length,
        "answered": bool(answers(engine, [found])[0].tokens),
    }


def _list_processors() -> dict[str, str]:
    """Returns the processor of each type of transformers for images and text that has a video part."""
    found = {}
    for name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        processor: Any = processor_class_from_name(str(PROCESSOR_MAPPING_NAMES.get(name)))
        if processor is not None and "video_processor" in processor.get_attributes():
            found[name] = processor.__name__
    return found


def _try_kimi(folder: Path) -> list[str]:
    """Returns the warnings on a video of a type whose video part is not used."""
    checkpoint = write_video_model("kimi_k25", folder)
    config = AutoConfig.from_pretrained(checkpoint)
    prompter = Prompter(load_processor(str(checkpoint), config), config)
    assert prompter.build(CASES["a video"], QUESTION).images["image_grid_thw"].shape == (4, 3)
    return [warning.message for warning in prompter.warn_of(CASES["a video"])]


def main(folder: Path, names: Collection[str]) -> None:
    print(json.dumps({"name": "", "case": "processors", "found": _list_processors()}))
    warnings = _try_kimi(folder / "kimi")
    print(json.dumps({"name": "kimi_k25", "case": "a video", "warnings": warnings}))
    for name in names:
        checkpoint = write_video_model(name, folder / name)
        model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
        own = AutoProcessor.from_pretrained(checkpoint)
        if name not in BY_TORCHVISION:
            own.image_processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
        with Engine(EngineConfig(model=str(checkpoint), device="cpu", cpu_threads=1)) as engine:
            path = "slots" if isinstance(engine._runner, ContinuousRunner) else "generate"
            if name not in NEWER:
                form = {"form": engine.prompt_form}
                print(json.dumps({"name": name, "case": "limits", **form, **_limit(engine)}))
            for case in BRIEF if name in NEWER else CASES:
                media = CASES[case]
                found = _compare(engine, own, model.eval(), media)
                print(json.dumps({"name": name, "path": path, "case": case, **found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), VIDEOS if sys.argv[2:] else VIDEOS.keys() - ALIKE)
