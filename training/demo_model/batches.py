"""Training batches: clips and their questions, packed.

A row is one clip's frames, then all its questions as branches: each sees the frames and itself,
no other branch. So the frames, which are most of the tokens, are paid for once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from checkpoint import IMAGE_PX, TOKENS_PER_FRAME
from demo_world import (
    Look,
    Question,
    Scene,
    compare_questions,
    questions,
    render,
    sample_pair,
    sample_scene,
    vocabulary,
)
from transformers import PreTrainedTokenizerFast

IGNORED = -100
_MAX_BRANCHES = 8
#: The slowest to learn: asked three times of every clip.
_HARD_KINDS = frozenset(("yes_no", "moving_in_turn", "moving_at_once", "same_direction"))
_UNKNOWN_SHARE = 0.12
#: Batches with a system message: words at random, since the answer must not depend on them.
_SYSTEM_SHARE = 0.1
#: Questions with another one, and its answer, before them.
_FOLLOW_UP_SHARE = 0.1
_UNSEEN = -1e4
#: Kinds that a single picture can answer; it shows the first shape of a sequence only.
_STILL_KINDS = frozenset(
    ("color", "shape", "objects", "colors_at_once", "objects_at_once", "named_shape", "named_color")
)
_ASPECTS = (1.0, 1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16)
#: Text before the frames of the first and of the second video; none is the guide's layout.
_LAYOUTS = (
    ("", ""),
    ("\nfirst video", "\nsecond video"),
    ("\nfirst video:", "\nsecond video:"),
    ("\nvideo 1:", "\nvideo 2:"),
    ("\nthe first video", "\nthe second video"),
    ("\nfirst clip", "\nsecond clip"),
)


@dataclass(frozen=True)
class Branch:
    """Place of one question's answer in a batch: tokens `start <= n < stop` of `row`."""

    row: int
    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class Batch:
    """B rows of N tokens."""

    #: `input_ids` int64[B, N], `position_ids` int64[B, N], `attention_mask` bfloat16[B, 1, N, N],
    #: `pixel_values` float32.
    inputs: dict[str, torch.Tensor]
    #: int64[B, N]; `IGNORED` except on answers.
    labels: torch.Tensor
    branches: list[Branch]


def clip_batch(
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    frames: int,
    kinds: dict[str, float],
) -> Batch:
    """Draws `rows` clips of `frames` frames; `kinds` maps kinds of scenes to their weights."""
    drawn = rng.choices(list(kinds), list(kinds.values()), k=rows)
    if frames == 1:
        drawn = ["single" if kind == "sequence" else kind for kind in drawn]
    scenes = [sample_scene(rng, kind) for kind in drawn]
    prefix = _draw_system(rng, tokenizer) + _ids(tokenizer, "<|im_start|>user" + _images(frames))
    asked = [questions(scene, rng) + _repeat_hard(questions, scene, rng=rng) for scene in scenes]
    if frames == 1:
        asked = [[one for one in row if one.kind in _STILL_KINDS] for row in asked]
    return _pack(rng, tokenizer, prefix, asked, _pixels(rng, scenes, frames))


def pair_batch(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, rows: int, frames: int
) -> Batch:
    """Draws `rows` pairs of clips, `frames` frames each, one after the other."""
    pairs = [sample_pair(rng) for _ in range(rows)]
    before_first, before_second = rng.choice(_LAYOUTS)
    prefix = _draw_system(rng, tokenizer) + _ids(
        tokenizer,
        "<|im_start|>user" + before_first + _images(frames) + before_second + _images(frames),
    )
    asked = [
        compare_questions(*pair, rng) + _repeat_hard(compare_questions, *pair, rng=rng)
        for pair in pairs
    ]
    scenes = [scene for pair in pairs for scene in pair]
    return _pack(rng, tokenizer, prefix, asked, _pixels(rng, scenes, frames))


def _repeat_hard(
    asker: Callable[..., list[Question]], *scenes: Scene, rng: random.Random
) -> list[Question]:
    """Returns the questions of hard kinds twice more, in other wordings."""
    again = asker(*scenes, rng) + asker(*scenes, rng)
    return [question for question in again if question.kind in _HARD_KINDS]


def _choose_questions(rng: random.Random, asked: list[Question]) -> list[Question]:
    """Returns all hard questions and some of the others, shuffled."""
    hard = [question for question in asked if question.kind in _HARD_KINDS]
    others = [question for question in asked if question.kind not in _HARD_KINDS]
    chosen = hard + rng.sample(others, min(_MAX_BRANCHES - len(hard), len(others)))
    return rng.sample(chosen, len(chosen))


def sample_times(rng: random.Random, frames: int) -> list[float]:
    """Returns the sampler's times k/n, each a little off."""
    return [max(0.0, (k + rng.uniform(-0.04, 0.12)) / frames) for k in range(frames)]


def draw(rng: random.Random, scenes: list[Scene], times: list[float]) -> torch.Tensor:
    """Returns float32[B * T, 3, 48, 48], -1..1: pictures as the processor makes them from a video."""
    look = Look(
        noise=rng.uniform(0, 5),
        color_jitter=rng.uniform(0, 14),
        gradient=rng.uniform(0, 14),
        edge_px=rng.uniform(0.6, 2.2),
        aspect=rng.choice(_ASPECTS) * rng.uniform(0.95, 1.05),
    )
    pixels = render(scenes, times, (IMAGE_PX, IMAGE_PX), look=look, seed=rng.getrandbits(31))
    scale = rng.uniform(0.85, 1.1) / 127.5
    flat = pixels.reshape(-1, IMAGE_PX, IMAGE_PX, 3).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.clip(flat.astype(np.float32) * np.float32(scale) - 1, -1, 1))


def _pixels(rng: random.Random, scenes: list[Scene], frames: int) -> torch.Tensor:
    """Draws the scenes in four groups, each with a look of its own; as many frames each."""
    times = sample_times(rng, frames)
    size = max(2, len(scenes) // 4)
    return torch.cat(
        [draw(rng, scenes[at : at + size], times) for at in range(0, len(scenes), size)]
    )


def _draw_system(rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Returns the tokens of a system message of random words, mostly of none."""
    if rng.random() >= _SYSTEM_SHARE:
        return []
    words = sorted(vocabulary())
    drawn = [
        rng.choice((rng.choice(words), tokenizer.unk_token)) for _ in range(rng.randint(3, 16))
    ]
    return _ids(tokenizer, f"<|im_start|>system\n{' '.join(drawn)}<|im_end|>")


def _images(frames: int) -> str:
    return "<image>" * (frames * TOKENS_PER_FRAME)


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _pack(
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    prefix: list[int],
    asked: list[list[Question]],
    pixels: torch.Tensor,
) -> Batch:
    """Packs the rows, each with its own branches after the common prefix."""
    rows = [_encode(rng, tokenizer, _choose_questions(rng, row)) for row in asked]
    start = len(prefix)
    size = start + max(sum(len(prompt) + len(answer) for _, prompt, answer in row) for row in rows)
    ids = torch.zeros(len(rows), size, dtype=torch.long)
    positions = torch.zeros_like(ids)
    group = torch.full_like(ids, -1)
    labels = torch.full_like(ids, IGNORED)
    ids[:, :start] = torch.tensor(prefix)
    positions[:, :start] = torch.arange(start)
    group[:, :start] = 0
    branches = []
    for row, encoded in enumerate(rows):
        at = start
        for number, (kind, prompt, answer) in enumerate(encoded, 1):
            middle, stop = at + len(prompt), at + len(prompt) + len(answer)
            ids[row, at:stop] = torch.tensor(prompt + answer)
            positions[row, at:stop] = start + torch.arange(stop - at)
            group[row, at:stop] = number
            labels[row, middle:stop] = torch.tensor(answer)
            branches.append(Branch(row, kind, middle, stop))
            at = stop
    inputs = {
        "input_ids": ids,
        "position_ids": positions,
        "attention_mask": _mask(group),
        "pixel_values": pixels,
    }
    return Batch(inputs, labels, branches)


def _mask(group: torch.Tensor) -> torch.Tensor:
    """Returns bfloat16[B, 1, N, N], 0 where seen: the prefix (group 0) and the own branch, up to here."""
    size = group.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool).tril()
    own = (group[:, :, None] == group[:, None, :]) | (group[:, None, :] == 0)
    seen = (causal & own) | torch.eye(size, dtype=torch.bool)
    return torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill_(~seen, _UNSEEN)[:, None]


def _encode(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, asked: list[Question]
) -> list[tuple[str, list[int], list[int]]]:
    """Returns (kind, prompt tokens, answer tokens) of each.

    Some prompts have an unknown word, some another question of the row and its answer before them.
    """
    prompts = tokenizer([f"\n{question.text}" for question in asked], add_special_tokens=False)[
        "input_ids"
    ]
    answers = tokenizer([question.answer for question in asked], add_special_tokens=False)[
        "input_ids"
    ]
    turn = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>", "assistant"])
    user = tokenizer.convert_tokens_to_ids(["<|im_start|>", "user"])
    unknown = tokenizer.unk_token_id
    for prompt in prompts:
        if rng.random() < _UNKNOWN_SHARE:
            prompt.insert(rng.randint(1, len(prompt)), unknown)
    answers = [[*answer, tokenizer.eos_token_id] for answer in answers]
    encoded = []
    for n, (question, prompt, answer) in enumerate(zip(asked, prompts, answers, strict=True)):
        before: list[int] = []
        if rng.random() < _FOLLOW_UP_SHARE:
            earlier = rng.randrange(len(asked))
            if earlier != n:
                before = prompts[earlier] + turn + answers[earlier] + user
        encoded.append((question.kind, before + prompt + turn, answer))
    return encoded
