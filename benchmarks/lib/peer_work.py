"""The questions of `engine/peers.py`, the same for every side.

Needs numpy only: sides have environments of their own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

__all__ = ["MIXES", "Mix", "Question", "questions_of", "write_prompt"]


@dataclass(frozen=True)
class Mix:
    """Questions that come at once."""

    questions: int
    each: int
    """Questions about a video."""
    height: int
    width: int
    frames: int = 8
    answers: tuple[int, ...] = (4, 16, 64)
    """Answer tokens, drawn for each question."""


MIXES = {
    "six": Mix(6, 1, 120, 120),
    "three": Mix(6, 3, 120, 120),
    "ten": Mix(10, 10, 720, 1280, answers=(16,)),
}
"""Six videos with a question each; two with three; one of 720p with ten."""


@dataclass(frozen=True)
class Question:
    """A question about a video; those about the same one hold the same array."""

    frames: np.ndarray
    """uint8[frames, height, width, 3], RGB."""
    text: str
    answer_tokens: int


def questions_of(mix: str, turn: int) -> list[Question]:
    """Returns the questions of a turn. Each turn has videos of its own, so nothing is left of an earlier one."""
    wanted, draw = MIXES[mix], random.Random(5)
    videos: dict[int, np.ndarray] = {}
    found = []
    for number in range(wanted.questions):
        seed = 10_000 * (turn + 1) + number // wanted.each
        if seed not in videos:
            videos[seed] = _make_video(seed, wanted)
        words = " ".join(draw.choice(["what", "moves", "where", "first"]) for _ in range(9))
        found.append(Question(videos[seed], f"{words} {number}?", draw.choice(wanted.answers)))
    draw.shuffle(found)
    return found


def write_prompt(question: Question) -> str:
    """Returns the prompt as the chat template of `gpu_models.py` has it."""
    pictures = "<image>" * len(question.frames)
    return f"<|im_start|>user\n{pictures}\n{question.text}<|im_end|>\n<|im_start|>assistant\n"


def _make_video(seed: int, mix: Mix) -> np.ndarray:
    """Blocks large enough to survive the resizing."""
    blocks = np.random.default_rng(seed).integers(0, 256, (mix.frames, 6, 6, 3), dtype=np.uint8)
    high = blocks.repeat(mix.height // 6, axis=1)
    return high.repeat(-(-mix.width // 6), axis=2)[:, :, : mix.width]
