"""Checkpoints of LLaVA's type with another processor: the one that their files name decides the prompt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.engine import REFERENCE, answers, ask, single
from support.models import clip, picture
from support.other_models import write_other
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlavaNextProcessor,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from videoqa_worker.engine import Engine, load_processor
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.model.processing.processor_class import find_processor_class
from videoqa_worker.prompt import FrameInput, Prompter
from videoqa_worker.settings import EngineConfig

SIZES = [(48, 64), (64, 24), (96, 160), (16, 16)]
"""Height and width of pictures: wide, high, larger than the longest edge, one patch."""
CELL = 16
"""Pixels on each side of what a token stands for: a patch, or four of eight pixels each."""
KINDS = ("mistral3", "pixtral")


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_other(family, tmp_path_factory.mktemp(family))


def expect(folder: Path, media: list[FrameInput], question: str) -> dict[str, Any]:
    """Inputs by the paper's layout: a line of tokens for each row of patches, and what ends it."""
    processor = PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size=CELL)
    images = [Image.fromarray(frame) for item in media for frame in item.frames]
    pixels = processor(images, return_tensors="pt")
    text = ""
    for height, width in pixels["image_sizes"].tolist():
        row = "[IMG]" * (width // CELL)
        text += "[IMG_BREAK]".join([row] * (height // CELL)) + "[IMG_END]"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = f"<s>[INST]{text}{question}[/INST]"
    return {**tokenizer(prompt, return_tensors="pt", add_special_tokens=False), **pixels}


def test_its_prompt_pixels_and_answer_are_those_of_its_own_processor(
    folder: Path,
) -> None:
    media = [picture(n, height=height, width=width) for n, (height, width) in enumerate(SIZES)]
    media.append(clip(9, 3))
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    config = EngineConfig(model=str(folder), device="cpu", cpu_threads=1, **REFERENCE)
    with Engine(config) as engine:
        assert isinstance(engine._runner, ContinuousRunner)
        requests = []
        for items in (media, media[:1], media[1:3], [clip(1, 2)]):
            expected = expect(folder, items, "What is it?")
            request = ask(engine, items, "What is it?", max_new_tokens=24)
            assert torch.equal(request.inputs.input_ids, expected["input_ids"])
            assert torch.equal(request.inputs.images["pixel_values"], expected["pixel_values"])
            length = expected["input_ids"].shape[1]
            written = model.generate(**expected, max_new_tokens=24, do_sample=False)
            assert list(single(engine, request).tokens) == written[0, length:].tolist()
            assert engine.prompter.count_tokens(items, "What is it?") == length
            requests.append(request)
        assert answers(engine, requests) == [single(engine, request) for request in requests]


def change(folder: Path, name: str, **changes: Any) -> None:
    stated = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps({**stated, **changes}))


def find(folder: Path) -> str:
    return find_processor_class(str(folder), AutoConfig.from_pretrained(folder), {}).__name__


def test_the_class_is_read_from_the_files_in_the_order_of_transformers(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("interleave"), folder)
    change(folder, "tokenizer_config.json", processor_class="LlavaOnevisionProcessor")
    change(folder, "preprocessor_config.json", processor_class="LlavaNextProcessor")
    assert find(folder) == "LlavaProcessor"
    (folder / "processor_config.json").write_text("{}")
    assert find(folder) == "LlavaNextProcessor"
    change(folder, "preprocessor_config.json", processor_class=None)
    assert find(folder) == "LlavaOnevisionProcessor"
    change(folder, "tokenizer_config.json", processor_class="NobodyKnowsProcessor")
    assert find(folder) == "LlavaProcessor"
    change(folder, "tokenizer_config.json", processor_class=None)
    assert find(folder) == "LlavaProcessor"


def test_an_old_pixtral_without_a_named_processor_is_known_by_its_vision_encoder(
    folder: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    for name in ("processor_config.json", "preprocessor_config.json"):
        change(old, name, processor_class=None)
    assert find(old) == "PixtralProcessor"


@pytest.mark.parametrize(
    ("checkpoint_of", "named", "reference"),
    [("next_video", "LlavaNextProcessor", LlavaNextProcessor)],
)
def test_a_checkpoint_with_the_processor_of_a_sibling_gets_its_prompts(
    checkpoint_of: str,
    named: str,
    reference: Any,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """LLaVA-NeXT-Video's first checkpoints name the class of images; their videos are frames then."""
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint(checkpoint_of), folder)
    if named:
        change(folder, "processor_config.json", processor_class=named)
    config = AutoConfig.from_pretrained(folder)
    ours = load_processor(str(folder), config, "reference")
    assert isinstance(ours, reference)
    prompter = Prompter(ours, config)
    assert not prompter.takes_videos
    inputs = prompter.build([clip(1, 2)], "What?")
    theirs = reference.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What?"}]
    prompt = theirs.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    images = [Image.fromarray(frame) for frame in clip(1, 2).frames]
    expected = theirs(text=prompt, images=images, return_tensors="pt")
    assert torch.equal(inputs.input_ids, expected["input_ids"])
    assert torch.equal(inputs.images["pixel_values"], expected["pixel_values"])
