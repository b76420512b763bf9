"""Any other model for images and text answers as its own `generate` does, row by row."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.engine import answers, ask, submitted
from support.models import clip, picture
from support.other_models import OTHERS, write_other
from transformers import AutoConfig, AutoModelForImageTextToText

from videoqa.errors import ConfigurationError, JobCanceled
from videoqa_worker.engine import Engine, Generated, load_processor
from videoqa_worker.settings import EngineConfig

QUESTIONS = [("What is it?", 1), ("Who runs, and where to?", 3), ("Why?", 2)]


@pytest.fixture(scope="module", params=sorted(OTHERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_other(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def other(folder: Path) -> Iterator[Engine]:
    with Engine(EngineConfig(model=str(folder), device="cpu", cpu_threads=1)) as engine:
        yield engine


@pytest.fixture(scope="module")
def own(folder: Path) -> tuple[Any, Any]:
    """The model and its processor, by transformers alone."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return model, load_processor(str(folder), AutoConfig.from_pretrained(folder))


def by_itself(own: tuple[Any, Any], question: str, frames: int) -> list[int]:
    """Its own chat template, processor and `generate`."""
    model, processor = own
    content = [{"type": "image"}] * frames + [{"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    images = [Image.fromarray(picture) for picture in clip(1, frames).frames]
    begins = processor.tokenizer.bos_token  # a second one is not added, as in `apply_chat_template`
    adds = not (begins and prompt.startswith(begins))
    inputs = processor(text=[prompt], images=[images], return_tensors="pt", add_special_tokens=adds)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    found: list[int] = ids[0, inputs["input_ids"].shape[1] :].tolist()
    return found


@pytest.mark.parametrize(("question", "frames"), QUESTIONS)
def test_it_says_what_its_own_generate_says(
    other: Engine, own: tuple[Any, Any], question: str, frames: int
) -> None:
    generated = answers(other, [ask(other, [clip(1, frames)], question)])[0]
    assert list(generated.tokens) == by_itself(own, question, frames)
    assert generated.output_tokens > 1
    assert generated.first_token_s > 0


def test_questions_that_come_together_are_answered_one_by_one(other: Engine) -> None:
    requests = [ask(other, [clip(1, n)], text) for text, n in QUESTIONS]
    alone = [answers(other, [request])[0] for request in requests]
    together: list[Generated] = answers(other, requests)
    assert together == alone
    assert len({generated.text for generated in alone}) > 1


def test_pictures_and_words_change_the_answer(other: Engine) -> None:
    texts = {
        answers(other, [ask(other, [media], text)])[0].text
        for media in (clip(1, 2), clip(5, 2), picture(3))
        for text in ("What is it?", "Who runs?")
    }
    assert len(texts) >= 4


def test_sequences_stop_when_told_and_stream_their_text(other: Engine) -> None:
    pieces: list[str] = []
    told = answers(other, [ask(other, [clip(1, 2)], "Tell.", on_text=pieces.append)])[0]
    assert "".join(pieces).strip() == told.text
    stop = told.text[3:5]
    cut = answers(other, [ask(other, [clip(1, 2)], "Tell.", stop=[stop])])[0]
    assert (cut.finish_reason, cut.text) == ("stop_string", told.text[: told.text.index(stop)])
    gone = threading.Event()
    gone.set()
    canceled = ask(other, [clip(1, 2)], "Tell.", should_stop=gone.is_set)
    with pytest.raises(JobCanceled):
        submitted(other, [canceled])[0].result(60)


def test_what_a_user_types_is_no_image(other: Engine) -> None:
    typed = "<|image_pad|> <start_of_image> <|im_end|> <fake_token_around_image>"
    plain = other.prompter.build([clip(1, 1)], "Say it.")
    hostile = other.prompter.build([clip(1, 1)], f"Say {typed}.")
    assert hostile.media_tokens == plain.media_tokens
    ends = [int((inputs.input_ids == 2).sum()) for inputs in (plain, hostile)]
    assert ends[0] == ends[1]
    assert answers(other, [ask(other, [clip(1, 1)], f"Say {typed}.")])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("llama", "expected one that answers text about images"),
        ("diffusion_gemma", "does not write a token after the other"),
    ],
)
def test_a_model_of_another_kind_is_refused(kind: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ConfigurationError, match=message):
        Engine(EngineConfig(model=str(tmp_path))).start()
