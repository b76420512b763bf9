"""Fast pixels in the engine: what reaches the vision tower, and what it answers from it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine import REFERENCE, TOGETHER, answers, ask, generated, reference_model, single
from support.models import FAMILIES, clip, picture
from support.scenes import questions, sample_scene, write_clip

from videoqa.contract import Sampling
from videoqa_worker.engine import Engine
from videoqa_worker.frames import sample_frames
from videoqa_worker.prompt import FrameInput, ModelInputs

MIXED = [clip(1, 3), picture(2, height=90, width=31), picture(3, height=20, width=200)]


def shown_to_the_tower(
    engine: Engine, inputs_of: Engine, media: list[FrameInput]
) -> list[torch.Tensor]:
    """Pixels that the vision tower of `engine` is called with for a question on `media`."""
    seen: list[torch.Tensor] = []

    def look(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(args[0] if args else kwargs["pixel_values"])

    towers = [
        module
        for name, module in engine._loaded.model.base_model.named_children()
        if name.endswith("_tower")
    ]
    hooks = [tower.register_forward_pre_hook(look, with_kwargs=True) for tower in towers]
    try:
        single(engine, ask(inputs_of, media, "What?", max_new_tokens=1))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vision_tower_sees_the_same_pictures_on_both_paths(
    family: str, engine_of: Callable[..., Engine]
) -> None:
    """Pictures of several sizes in one question: tiles, padding and all."""
    engine, reference = engine_of(family, **TOGETHER), engine_of(family, **REFERENCE)
    fast = shown_to_the_tower(engine, engine, MIXED)
    slow = shown_to_the_tower(engine, reference, MIXED)
    assert len(fast) == len(slow) > 0
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype == torch.float32
        # Stricter than in steps of a byte: normalising stretches 1/255 by 2 (SigLIP) to 4 (CLIP).
        assert (ours - theirs).abs().mean() <= 1 / 255


def placed_by_hand(inputs: ModelInputs) -> dict[str, torch.Tensor]:
    """Arguments of `generate` for a row, its pixels normalised as the model cards write it."""

    def floats(kind: str, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.dtype == torch.uint8
        how = inputs.normalisations[kind]
        mean, std = (torch.tensor(c)[:, None, None] for c in (how.mean, how.std))
        return (pixels.float() / 255 - mean) / std

    given = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
    given |= {n: v for n, v in inputs.images.items() if n in ("image_sizes", "batch_num_images")}
    if "pixel_values" in inputs.images:
        given["pixel_values"] = floats("image", inputs.images["pixel_values"])
    if inputs.videos:
        given["pixel_values_videos"] = torch.cat([floats("video", v) for v in inputs.videos])
    return given


@pytest.mark.parametrize("family", FAMILIES)
def test_of_fast_pixels_the_engine_makes_what_transformers_makes(
    family: str, checkpoint: Callable[[str], Path], engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(family, **TOGETHER)
    model = reference_model(family, checkpoint(family))
    for media in ([clip(1, 4), clip(5, 4)], [picture(3, height=64, width=32), picture(4)]):
        request = ask(engine, media, "What changes?", max_new_tokens=40)
        expected = generated(model, placed_by_hand(request.inputs), 40)
        assert list(single(engine, request).tokens) == expected


def test_the_demo_model_gives_the_same_answers_on_both_paths(
    tmp_path: Path, engine_of: Callable[..., Engine]
) -> None:
    """Unseen clips as files, through the sampler; the pictures are 4 to 9 times the model's."""
    fast = engine_of("demo", **TOGETHER)
    reference = engine_of("demo", **REFERENCE)
    rng = random.Random("pixels")
    told: Counter[bool] = Counter()
    for n in range(12):
        scene = sample_scene(rng)
        size = rng.choice(((224, 224), (320, 180), (426, 240)))
        path = write_clip(scene, tmp_path / f"{n}.mp4", size_px=size, seed=n)
        frames = sample_frames(path, Sampling(frames=8)).frames
        media = FrameInput("video", tuple(f.pixels for f in frames), tuple(f.pts_s for f in frames))
        asked = [question.text for question in questions(scene, rng)]
        ours, theirs = (
            answers(engine, [ask(engine, [media], text) for text in asked])
            for engine in (fast, reference)
        )
        told.update(a.text == b.text for a, b in zip(ours, theirs, strict=True))
    print(f"\nsame answers: {told[True]} of {told.total()}")
    assert told.total() >= 60
    assert told[False] == 0


def test_half_precision_gets_what_the_reference_is_rounded_to(
    engine_of: Callable[..., Engine],
) -> None:
    """Normalised in float32 and rounded once, not computed in bfloat16."""
    engine = engine_of("interleave", dtype="bfloat16")
    inputs = ask(engine, [picture(1, height=42, width=42)], "What?").inputs
    (seen,) = shown_to_the_tower(engine, engine, [picture(1, height=42, width=42)])
    exact = placed_by_hand(inputs)["pixel_values"]
    assert seen.dtype == torch.bfloat16
    assert torch.equal(seen, exact.to(torch.bfloat16))
