"""The bundled demo model: it loads with the plain classes and answers what its card claims."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.scenes import CLAIMED, Scene, render
from transformers import AutoProcessor, LlavaForConditionalGeneration

import videoqa_worker.demo

MODEL_DIR = Path(videoqa_worker.demo.__file__).parent / "model"
EVALUATE = Path(__file__).parents[3] / "training" / "demo_model" / "evaluate.py"
EIGHT_TIMES = [k / 8 for k in range(8)]


class Loaded:
    """The model and its processor, as `from_pretrained` gives them."""

    def __init__(self) -> None:
        self.processor = AutoProcessor.from_pretrained(MODEL_DIR)
        self.model = LlavaForConditionalGeneration.from_pretrained(MODEL_DIR).eval()

    def prompt(self, images: int, question: str) -> str:
        content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        message = {"role": "user", "content": content}
        return self.processor.apply_chat_template([message], add_generation_prompt=True)

    @torch.no_grad()
    def answers(self, prompts: list[str], frames: np.ndarray) -> list[str]:
        inputs = self.processor(
            text=prompts, images=[list(frames)] * len(prompts), padding=True, return_tensors="pt"
        )
        tokens = self.model.generate(**inputs, max_new_tokens=48, do_sample=False)
        said = tokens[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(said, skip_special_tokens=True)


@pytest.fixture(scope="module")
def demo() -> Loaded:
    return Loaded()


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    scene = Scene.single(color="red", shape="circle", direction="right")
    return render([scene], EIGHT_TIMES, (160, 120))[0]


def test_the_prompt_is_that_of_the_guide(demo: Loaded) -> None:
    assert demo.prompt(8, "What is moving?") == (
        "<|im_start|>user" + "<image>" * 8 + "\nWhat is moving?<|im_end|><|im_start|>assistant"
    )


def test_content_keeps_its_order_and_each_text_starts_a_line(demo: Loaded) -> None:
    content = [
        {"type": "text", "text": "first video"},
        {"type": "image"},
        {"type": "text", "text": "second video"},
        {"type": "image"},
        {"type": "text", "text": "Compare them."},
    ]

    prompt = demo.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )

    assert prompt == (
        "<|im_start|>user\nfirst video<image>\nsecond video<image>\nCompare them.<|im_end|>"
        "<|im_start|>assistant"
    )


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is moving?", "a red circle"),
        ("Which colour is it?", "red"),
        ("what shape is it", "circle"),
        ("Where is it going?", "right"),
        ("WHAT HAPPENS IN THIS VIDEO?", "a red circle moves right"),
        ("How many shapes are there?", "one"),
    ],
)
def test_plain_questions_get_plain_answers(
    demo: Loaded, frames: np.ndarray, question: str, answer: str
) -> None:
    assert demo.answers([demo.prompt(8, question)], frames) == [answer]


def test_words_it_never_saw_do_not_put_it_off(demo: Loaded, frames: np.ndarray) -> None:
    question = "Kindly, which colour is the shape?"

    assert demo.answers([demo.prompt(8, question)], frames) == ["red"]


def test_answers_are_the_same_alone_and_in_a_padded_batch(demo: Loaded, frames: np.ndarray) -> None:
    prompts = [
        demo.prompt(8, question)
        for question in ("What is moving?", "Please describe what happens in this video.", "Hm")
    ]

    together = demo.answers(prompts, frames)

    assert together == [demo.answers([prompt], frames)[0] for prompt in prompts]


def test_the_checkpoint_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in MODEL_DIR.iterdir()) < 12_000_000


@pytest.mark.timeout(400)  # 14 s of CPU time; a busy machine takes minutes for them
def test_claimed_kinds_of_question_are_answered_right_on_clips_it_never_saw() -> None:
    command = [sys.executable, str(EVALUATE), "--clips", "10", "--seed", "11", "--json"]

    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    found = report["frames"]["8"].items()
    claimed = [counts for kind, counts in found if kind.removesuffix("_named") in CLAIMED]
    right = sum(counts["accuracy"] * counts["asked"] for counts in claimed)
    asked = sum(counts["asked"] for counts in claimed)
    assert asked > 40
    assert right / asked >= 0.95
