"""The text model's weights in 4 and 8 bits, by bitsandbytes, which can do that on a CPU too."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.engine import answers, ask, mixed, single, varied
from support.models import clip
from support.scenes import questions, render, sample_scene
from transformers import GenerationConfig

from videoqa_worker.engine import Engine
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.prompt import FrameInput

BITS = ("4bit", "8bit")


def linear(engine: Engine) -> dict[str, set[str]]:
    """The classes of the matrices of each part."""
    found: dict[str, set[str]] = {}
    for name, module in engine._loaded.model.named_modules():
        if "Linear" in type(module).__name__:
            part = name.removeprefix("model.").split(".")[0]
            found.setdefault(part, set()).add(type(module).__name__)
    return found


@pytest.mark.parametrize("bits", BITS)
def test_only_the_text_model_is_quantised_and_runs_in_slots(
    bits: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of("demo", quantization=bits)
    kind = {"4bit": "Linear4bit", "8bit": "Linear8bitLt"}[bits]
    assert linear(engine) == {
        "language_model": {kind},
        "vision_tower": {"Linear"},
        "multi_modal_projector": {"Linear"},
        "lm_head": {"Linear"},
    }
    assert isinstance(engine._runner, ContinuousRunner)


@pytest.mark.parametrize("family", ["next", "next_video", "onevision", "video_llava"])
def test_every_familys_pictures_are_seen_with_all_bits(
    family: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(family, quantization="4bit")
    found = linear(engine)
    assert found.pop("language_model") == {"Linear4bit"}
    assert set.union(*found.values()) == {"Linear"}
    requests = [ask(engine, [clip(n, 3)], "What?", max_new_tokens=8) for n in range(3)]
    assert answers(engine, requests) == [single(engine, request) for request in requests]


@pytest.mark.parametrize("bits", BITS)
def test_it_still_knows_what_the_demo_model_knows(
    bits: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of("demo", quantization=bits)
    rng = random.Random(5)
    right, requests = [], []
    for _ in range(20):
        scene = sample_scene(rng, "single")
        frames = render([scene], [n / 8 for n in range(8)], (192, 192))[0]
        for question in questions(scene, rng):
            if question.kind in ("color", "shape", "direction", "describe"):
                requests.append(ask(engine, [FrameInput("video", tuple(frames))], question.text))
                right.append(question.answer)
    said = [answer.text for answer in answers(engine, requests)]
    hits = sum(a == b for a, b in zip(said, right, strict=True))
    assert len(right) >= 60
    assert hits >= 0.9 * len(right)


def test_a_batch_in_4_bits_says_what_generate_says_alone(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("demo", quantization="4bit", max_batch=8)
    model, pad = engine._loaded.model, engine._loaded.generation.pad
    requests = [*mixed(engine, 6), *varied(engine, 6, seed=2)]
    expected = []
    for request in requests:
        inputs = request.inputs
        pixels = inputs.normalisations["image"](
            inputs.images["pixel_values"], model.device, model.dtype
        )
        limit = request.generation.max_new_tokens
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=limit,
            pad_token_id=pad,
            eos_token_id=[*engine._loaded.generation.eos],
        )
        out = model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            pixel_values=pixels,
            generation_config=settings,
        )
        expected.append(tuple(out[0, inputs.length :].tolist()))
    assert [answer.tokens for answer in answers(engine, requests)] == expected
    assert len(set(expected)) > 2
