"""Each LLaVA family through the same engine, against transformers used directly.

The reference knows nothing of our code. For image models it is the family's processor and
`generate`. For video models transformers has no processor without torchvision, so the
reference writes the placeholder tokens by the family's documented count and takes the
pixels from the image processor that shares the family's preprocessing (CLIP or SigLIP).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.engine import (
    REFERENCE,
    TOGETHER,
    Tokens,
    answers,
    ask,
    batch_sizes,
    generated,
    reference_model,
    single,
)
from support.models import FAMILIES, clip, picture
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    SiglipImageProcessorPil,
)

from videoqa_worker.engine import Engine
from videoqa_worker.prompt import FrameInput

IMAGE_MODELS = ("interleave", "next")
VIDEO_MODELS = ("next_video", "onevision", "video_llava")


def of_image_model(
    family: str, folder: Path, frames: list[Any], question: str, max_new_tokens: int
) -> Tokens:
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}] * len(frames) + [{"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    images = [Image.fromarray(frame) for frame in frames]
    inputs = processor(text=prompt, images=images, return_tensors="pt")
    return generated(reference_model(family, folder), inputs, max_new_tokens)


TOKENS_A_VIDEO = {
    # 4 x 4 patches, pooled by 2 in each direction
    "next_video": lambda frames: frames * 4,
    # 3 x 3 patches, pooled to 2 x 2; one line break at the end
    "onevision": lambda frames: frames * 4 + 1,
    # 2 x 2 patches and the class token
    "video_llava": lambda frames: frames * 5,
}
PIXELS = {
    "next_video": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    ),
    "onevision": lambda: SiglipImageProcessorPil(size={"height": 42, "width": 42}),
    "video_llava": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ),
}
PROMPTS = {
    "next_video": "<|im_start|>user\n{media}\n{text}<|im_end|>\n<|im_start|>assistant\n",
    "onevision": "<|im_start|>user\n{media}\n{text}<|im_end|>\n<|im_start|>assistant\n",
    "video_llava": "[INST] {media}{text} [/INST]",
}


def of_video_model(
    family: str, folder: Path, videos: list[FrameInput], question: str, max_new_tokens: int
) -> Tokens:
    after = "\n" if family == "video_llava" else ""
    media = "".join(
        "<video>" * TOKENS_A_VIDEO[family](len(video.frames)) + after for video in videos
    )
    text = PROMPTS[family].format(media=media, text=question)
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    pixels = [
        PIXELS[family]()(list(video.frames), return_tensors="pt")["pixel_values"]
        for video in videos
    ]
    return generated(
        reference_model(family, folder),
        {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "pixel_values_videos": torch.stack(pixels),
        },
        max_new_tokens,
    )


@pytest.mark.parametrize("family", IMAGE_MODELS)
def test_an_image_model_sees_each_frame_as_transformers_shows_it(
    family: str, checkpoint: Callable[[str], Path], engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(family, **REFERENCE)
    media = [clip(1, 3), picture(2, height=64, width=32), clip(3, 2)]
    frames = [frame for item in media for frame in item.frames]
    expected = of_image_model(family, checkpoint(family), frames, "What changes?", 40)
    answer = single(engine, ask(engine, media, "What changes?", max_new_tokens=40))
    assert list(answer.tokens) == expected


@pytest.mark.parametrize("family", VIDEO_MODELS)
@pytest.mark.parametrize("frames", [(8,), (1,), (3, 3)])
def test_a_video_model_sees_each_video_as_one_item(
    family: str,
    frames: tuple[int, ...],
    checkpoint: Callable[[str], Path],
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of(family, **REFERENCE)
    videos = [clip(n, count) for n, count in enumerate(frames)]
    expected = of_video_model(family, checkpoint(family), videos, "What changes?", 40)
    request = ask(engine, videos, "What changes?", max_new_tokens=40)
    assert request.inputs.media_tokens == sum(map(TOKENS_A_VIDEO[family], frames))
    assert list(single(engine, request).tokens) == expected


@pytest.mark.parametrize("family", VIDEO_MODELS)
def test_images_stay_images_beside_videos(family: str, engine_of: Callable[..., Engine]) -> None:
    engine = engine_of(family, **TOGETHER)
    media = [clip(1, 4), picture(2)]
    request = ask(engine, media, "What is in both?")
    assert [video.shape[1] for video in request.inputs.videos] == [4]
    assert "pixel_values" in request.inputs.images
    other_picture = ask(engine, [media[0], picture(3)], "What is in both?")
    other_video = ask(engine, [clip(4, 4), media[1]], "What is in both?")
    told = [single(engine, r).tokens for r in (request, other_picture, other_video)]
    assert len(set(told)) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_answers_as_its_sequences_do_alone(
    family: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(family, **TOGETHER)
    media = [
        [clip(1, 4)],
        [clip(2, 2), clip(3, 2)],
        [clip(4, 1)],
        [picture(5), clip(6, 3)],
        [picture(7, height=64, width=40)],
        [clip(8, 5), clip(9, 2)],  # videos of one row may differ in frames
        [picture(10), picture(11, height=32)],
        [clip(12, 8)],
    ]
    requests = [
        ask(engine, items, f"What is it{' again' * n}?", max_new_tokens=16 + n)
        for n, items in enumerate(media)
    ]
    alone = [single(engine, request) for request in requests]
    with batch_sizes(engine) as rows:
        together = answers(engine, requests)
    assert max(rows) == 8
    assert together == alone
    assert len({answer.tokens for answer in alone}) == 8


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batching", ["slots", "generate"])
def test_text_alone_is_answered_as_by_transformers_also_beside_pictures(
    family: str,
    batching: str,
    checkpoint: Callable[[str], Path],
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of(family, batching=batching, **TOGETHER)
    request = ask(engine, (), "What changes?", max_new_tokens=20)
    inputs = {
        "input_ids": request.inputs.input_ids,
        "attention_mask": request.inputs.attention_mask,
    }
    expected = generated(reference_model(family, checkpoint(family)), inputs, 20)
    assert list(single(engine, request).tokens) == expected
    seen = ask(engine, [clip(1, 4)], "What?", max_new_tokens=20)
    alone = single(engine, seen).tokens
    both = answers(engine, [request, seen])
    assert [list(one.tokens) for one in both] == [expected, list(alone)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_looks_at_its_pictures(family: str, engine_of: Callable[..., Engine]) -> None:
    engine = engine_of(family, **TOGETHER)
    told = {
        single(engine, ask(engine, [clip(seed, 4)], "What?", max_new_tokens=40)).tokens
        for seed in range(4)
    }
    assert len(told) >= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_computed_for_the_last_position_of_a_prompt_only(
    family: str, engine_of: Callable[..., Engine]
) -> None:
    """Scores of all 5,857 positions of a usual prompt over 152,000 words would be 3.6 GB."""
    engine = engine_of(family, **TOGETHER)
    seen: list[int] = []
    head = engine._loaded.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    try:
        single(engine, ask(engine, [clip(1, 4)], "What?", max_new_tokens=3))
    finally:
        hook.remove()
    assert seen == [1, 1, 1]


def test_a_base_model_without_a_template_gets_the_plain_prompt(
    checkpoint: Callable[[str], Path], engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of("base", pixels="reference")
    assert [warning.code for warning in engine.warnings] == ["no_chat_template"]
    media = [clip(1, 3)]
    processor = AutoProcessor.from_pretrained(checkpoint("base"))
    inputs = processor(
        text="<image>" * 3 + "\nUSER: What is it?\nASSISTANT:",
        images=[Image.fromarray(frame) for frame in media[0].frames],
        return_tensors="pt",
    )
    model = reference_model("base", checkpoint("base"))
    answer = single(engine, ask(engine, media, "What is it?", max_new_tokens=30))
    assert list(answer.tokens) == generated(model, inputs, 30)
