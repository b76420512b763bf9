"""Each architecture against transformers' own processor and `generate`; prints the table of architectures.

Tiny models with random weights. The reference is transformers' processor, or the same class with parts by
PIL where transformers asks for torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.architecture_table import Architecture, read_page
from support.architectures import ARCHITECTURES, BEGINNING
from support.engine import REFERENCE, answers, ask, single
from support.extra_models import EXTRAS, write_extra
from support.models import clip, picture
from support.newer_video_models import ALIKE
from support.other_models import write_model
from support.video_models import VIDEOS, WITH_EXTRA
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from videoqa.errors import ConfigurationError
from videoqa_worker.engine import Engine, load_processor
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.model.features_apart import build_trials, takes_features_apart
from videoqa_worker.engine.model.layer_masks import find_layer_masks
from videoqa_worker.prompt import FrameInput, Prompter
from videoqa_worker.settings import EngineConfig

FAMILIES = {
    "interleave": "llava",
    "next": "llava_next",
    "next_video": "llava_next_video",
    "onevision": "llava_onevision",
    "video_llava": "video_llava",
}
NAMES = {"pixtral": "llava (Pixtral)"}
WITHOUT_EXTRA = sorted(EXTRAS.keys() - {"perception_lm", "smolvlm"})
"""PerceptionLM cannot even be written without the extra; num2words may be installed by something else."""
QUESTIONS = [("What is it?", 1), ("Who runs, and where to?", 2)]
TOKENS = 12
UNCOUNTED = {"idefics2": 1}
"""Tokens of a prompt that are not counted by the sizes of its pictures."""
SIZE = {"height": 60, "width": 100}


def load_reference(folder: Path) -> Any:
    try:
        return AutoProcessor.from_pretrained(folder, backend="pil")
    except (ImportError, ValueError):  # it wants torchvision, for videos
        return load_processor(str(folder), AutoConfig.from_pretrained(folder), "reference")


def encode(own: Any, media: list[FrameInput], question: str) -> Any:
    content = [{"type": "image"}] * len(media) + [{"type": "text", "text": question}]
    prompt = own.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    bos = own.tokenizer.bos_token
    return own(
        text=[prompt],
        images=[[Image.fromarray(item.frames[0]) for item in media]],
        return_tensors="pt",
        add_special_tokens=not (bos and prompt.startswith(bos)),
    )


def write(name: str, folder: Path) -> Path:
    return write_model(ARCHITECTURES[name], folder, bos=name in BEGINNING)


@pytest.mark.parametrize("name", [*FAMILIES, *ARCHITECTURES])
def test_prompt_pixels_and_answer_are_those_of_processor_and_generate(
    name: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    architecture_table: list[Architecture],
) -> None:
    folder = checkpoint(name) if name in FAMILIES else write(name, tmp_path)
    own = load_reference(folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    config = EngineConfig(model=str(folder), device="cpu", cpu_threads=1, **REFERENCE)
    with Engine(config) as engine:
        requests, alone = [], []
        for question, count in QUESTIONS:
            media = [picture(n, **SIZE) for n in range(count)]
            expected = encode(own, media, question)
            request = ask(engine, media, question, max_new_tokens=TOKENS)
            assert torch.equal(request.inputs.input_ids, expected["input_ids"])
            for kind, ours in request.inputs.images.items():
                theirs = expected.get(kind, expected.get(f"{kind}_images"))
                assert torch.equal(ours, torch.as_tensor(theirs)), kind
            with torch.inference_mode():
                ids = model.generate(**expected, max_new_tokens=TOKENS, do_sample=False)
            requests.append(request)
            alone.append(single(engine, request))
            assert list(alone[-1].tokens) == ids[0, expected["input_ids"].shape[1] :].tolist()
            counted = engine.prompter.count_tokens(media, question)
            assert counted == request.inputs.length - UNCOUNTED.get(name, 0)
        assert answers(engine, requests) == alone
        assert len({answer.tokens for answer in alone}) > 1
        path = "slots" if isinstance(engine._runner, ContinuousRunner) else "generate"
        video = "a video" if engine.prompter.takes_videos else "images"
        if name in VIDEOS:
            (warning,) = engine.prompter.warn_of([clip(1, 2)])
            assert (warning.code, "./worker[models]" in warning.message) == (
                "video_as_images",
                True,
            )
            video = WITH_EXTRA
    row = Architecture(FAMILIES.get(name) or NAMES.get(name, name), path, video)
    architecture_table.append(row)
    assert read_page()[row.name] == row


def test_the_trial_of_features_tells_the_same_in_halves(tmp_path: Path) -> None:
    """Rounding hides what a shifted position changes, so the trial compares the positions themselves."""
    expected = {"gemma3": True, "paligemma": False, "qwen2_vl": True, "qwen3_vl": True}
    expected |= {"mistral3": True, "idefics3": True, "internvl": True}
    found = {}
    for name in expected:
        folder = write(name, tmp_path / name)
        dtype = torch.float16 if name in ("qwen2_vl", "idefics3") else torch.bfloat16
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
        own = load_processor(str(folder), model.config, "reference")
        prompter = Prompter(own, model.config)
        masks = find_layer_masks(model, partial(next, build_trials(prompter)))
        found[name] = masks is not None and takes_features_apart(model, prompter, masks)
    assert found == expected


@pytest.mark.parametrize("name", WITHOUT_EXTRA)
def test_an_architecture_that_needs_an_extra_is_in_the_table(
    name: str, tmp_path: Path, architecture_table: list[Architecture]
) -> None:
    """With the extra, `test_engine_extras.py` compares it."""
    write_extra(name, tmp_path)
    with pytest.raises(ConfigurationError, match=r"worker\[models\]"):
        Engine(EngineConfig(model=str(tmp_path), device="cpu")).start()
    architecture_table.append(Architecture(name, "", "", "extra `models`"))
    assert read_page()[name].needs == "extra `models`"


def test_the_page_lists_what_is_tested_and_nothing_else() -> None:
    tested = {*FAMILIES.values(), *(NAMES.get(name, name) for name in ARCHITECTURES), *EXTRAS}
    tested |= VIDEOS.keys() - ALIKE
    assert read_page().keys() == tested
