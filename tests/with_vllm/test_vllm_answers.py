"""vLLM in the worker answers as our own engine does, token by token in float32."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest
from support.models import clip
from support.processes import wait_until

from videoqa.contract import Generation
from videoqa.errors import JobCanceled, PromptTooLong
from videoqa_worker.engine import Engine, Generated, MediaQuestion, VllmEngine
from videoqa_worker.prompt import FrameInput

Pair = tuple[VllmEngine, Engine]
SIZES = {"interleave": (42, 42), "onevision": (42, 42), "qwen2_vl": (56, 84)}
"""Sizes that each model takes as they are: torchvision, which vLLM has, resizes a little differently from PIL."""
Options = dict[str, Any]
CASES: list[tuple[list[tuple[int, int]], str, Options]] = [
    ([(1, 3)], "What is it?", {}),
    ([(1, 3)], "Who runs, and where to?", {"max_new_tokens": 40}),
    ([(2, 1), (3, 4)], "Which one?", {"repetition_penalty": 1.5}),
    ([(4, 0)], "Why?", {"frequency_penalty": 0.9, "presence_penalty": 0.4}),
    ([], "Nothing to see.", {}),
]
"""Seed and number of frames of each input, 0 for an image; question; settings."""


def shot(family: str, seed: int, frames: int) -> FrameInput:
    height, width = SIZES[family]
    whole = clip(seed, frames or 1, height=96, width=96)
    cut = tuple(frame[:height, :width].copy() for frame in whole.frames)
    return FrameInput("video", cut, whole.pts_s) if frames else FrameInput("image", cut)


def ask(
    engine: VllmEngine | Engine,
    media: list[FrameInput],
    text: str,
    *,
    options: Options | None = None,
    **generation: Any,
) -> Future[Generated]:
    settings = Generation(**{"max_new_tokens": 24, **generation})
    return engine.ask(MediaQuestion(media, text, generation=settings, **(options or {})))


def test_both_say_the_same(pair: Pair, family: str) -> None:
    cases = [
        ([shot(family, *one) for one in media], text, settings) for media, text, settings in CASES
    ]
    asked = [[ask(engine, media, text, **more) for media, text, more in cases] for engine in pair]
    theirs, ours = ([future.result(200) for future in futures] for futures in asked)
    assert theirs == ours
    assert len({generated.text for generated in ours}) >= 4
    assert sum(generated.output_tokens for generated in ours) > 60


def test_text_is_streamed_and_ends_before_a_stop_string(pair: Pair, family: str) -> None:
    media, pieces = [shot(family, 1, 3)], list[str]()
    whole, ours = (ask(engine, media, "Tell.", max_new_tokens=30).result(200) for engine in pair)
    stop = whole.text[8:10]
    told = ask(
        pair[0], media, "Tell.", max_new_tokens=30, stop=[stop], options={"on_text": pieces.append}
    ).result(200)
    assert whole == ours
    assert told.finish_reason == "stop_string"
    assert told.text == whole.text[: whole.text.index(stop)].strip()
    assert "".join(pieces).strip() == told.text
    assert len(pieces) > 1


def test_a_seed_makes_draws_repeatable(pair: Pair, family: str) -> None:
    drawn = [
        ask(pair[0], [shot(family, 1, 2)], "Guess.", temperature=1.5, seed=seed)
        for seed in (7, 7, 8)
    ]
    first, again, other = (future.result(200) for future in drawn)
    assert first.tokens == again.tokens
    assert first.tokens != other.tokens


def test_a_question_is_called_off_while_it_runs(pair: Pair, family: str) -> None:
    gone, begun = threading.Event(), threading.Event()
    options = {"should_stop": gone.is_set, "on_progress": lambda tokens: begun.set()}
    future = ask(pair[0], [shot(family, 1, 1)], "Go on.", max_new_tokens=1500, options=options)
    assert begun.wait(200)
    gone.set()
    with pytest.raises(JobCanceled):
        future.result(200)
    wait_until(lambda: pair[0].stats.running == 0)
    short = ask(pair[0], [shot(family, 1, 1)], "Still there?", max_new_tokens=3).result(200)
    assert short.output_tokens == 3


def test_a_prompt_that_is_too_long_is_refused_before_it_is_sent(pair: Pair, family: str) -> None:
    steps = pair[0].stats.steps
    with pytest.raises(PromptTooLong, match="frames"):
        ask(pair[0], [shot(family, 1, 1500)], "What?").result(200)
    with pytest.raises(PromptTooLong):
        ask(pair[0], [], "word " * 1500, max_new_tokens=4000).result(200)
    assert pair[0].stats.steps == steps


def test_frames_that_vllm_had_before_are_found_by_their_digest(pair: Pair, family: str) -> None:
    ask(pair[0], [shot(family, 9, 3)], "First?", max_new_tokens=2).result(200)
    before = pair[0].stats
    ask(pair[0], [shot(family, 9, 3)], "Second?", max_new_tokens=2).result(200)
    after = pair[0].stats
    assert after.features.hits > before.features.hits
    assert after.features.misses == before.features.misses


def test_counters_and_revision_are_known(pair: Pair, family: str) -> None:
    assert pair[0].ready
    assert pair[0].revision == pair[1].revision
    stats = pair[0].stats
    assert stats.output_tokens > 0
    assert stats.kv_positions is not None
    assert stats.kv_positions >= 8192
