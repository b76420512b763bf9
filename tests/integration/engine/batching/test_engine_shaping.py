"""A checkpoint's own generation settings shape answers in slots as in `generate`."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.engine import answers, ask
from support.models import clip

from videoqa_worker.engine import Engine
from videoqa_worker.settings import EngineConfig

LETTERS = [6 + n for n in range(60, 70)]

SHAPED: list[dict[str, Any]] = [
    {"repetition_penalty": 1.0},
    {"repetition_penalty": 1.6},
    {"repetition_penalty": 1.0, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.0, "bad_words_ids": [[n] for n in LETTERS]},
    {"repetition_penalty": 1.0, "suppress_tokens": LETTERS},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "suppress_tokens": LETTERS[:4]},
]


@pytest.fixture
def told(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., list[tuple[int, ...]]]:
    def of(settings: dict[str, Any], batching: str, **row: Any) -> list[tuple[int, ...]]:
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(checkpoint("interleave"), folder)
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        config = EngineConfig(model=str(folder), device="cpu", cpu_threads=1, batching=batching)  # type: ignore[arg-type]
        with Engine(config) as engine:
            requests = [
                ask(engine, [clip(n, 1 + n)], "What? " * (n + 1), max_new_tokens=30, **row)
                for n in range(4)
            ]
            return [answer.tokens for answer in answers(engine, requests)]

    return of


@pytest.mark.parametrize("settings", SHAPED, ids=",".join)
def test_slots_shape_answers_as_generate_does(
    settings: dict[str, Any], told: Callable[..., list[tuple[int, ...]]]
) -> None:
    shaped = told(settings, "slots")
    assert shaped == told(settings, "generate")
    if settings != SHAPED[0]:
        assert shaped != told(SHAPED[0], "slots")


def test_no_sequence_says_a_pair_of_tokens_twice(
    told: Callable[..., list[tuple[int, ...]]],
) -> None:
    settings = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 2}
    for row in ({}, {"temperature": 1.0, "seed": 3}):
        for tokens in told(settings, "slots", **row):
            pairs = list(itertools.pairwise(tokens))
            assert len(set(pairs)) == len(pairs)


def test_a_sequence_that_samples_never_says_what_is_suppressed(
    told: Callable[..., list[tuple[int, ...]]],
) -> None:
    hot = {"temperature": 1.9, "seed": 3}
    free = told({"repetition_penalty": 1.0}, "slots", **hot)
    said = sorted({token for tokens in free for token in tokens} - {2})
    settings = {"repetition_penalty": 1.0, "suppress_tokens": said[::2]}
    bound = told(settings, "slots", **hot)
    assert not {token for tokens in bound for token in tokens} & set(said[::2])
    assert bound == told(settings, "generate", **hot)
