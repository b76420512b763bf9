"""Equal requests at the same time share a row, and each caller hears what it would hear alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.engine import answers, ask, batch_sizes, before_each_forward, single, submitted
from support.models import clip

from videoqa.errors import JobCanceled, ModelError, PromptTooLong
from videoqa_worker.engine import Engine, GenerationRequest


@pytest.fixture(params=["slots", "generate"])
def engine(request: pytest.FixtureRequest, engine_of: Callable[..., Engine]) -> Engine:
    return engine_of("interleave", batching=request.param, batch_wait_s=0.3, length_ratio=100.0)


def again(engine: Engine, **settings: Any) -> GenerationRequest:
    """Equal each time, by another caller with pixels of its own."""
    return ask(engine, [clip(3, 2)], "What is it?", **settings)


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """The engine is busy with something else in this block."""
    going, over = threading.Event(), threading.Event()

    def stay(tokens: int) -> None:
        going.set()
        over.wait(30)

    busy = engine.submit(ask(engine, [clip(9, 1)], "Busy?", own_batch=True, on_progress=stay))
    assert going.wait(30)
    try:
        yield
    finally:
        over.set()
        busy.result(30)


def test_ten_callers_get_one_answer_from_one_sequence(engine: Engine) -> None:
    alone = single(engine, again(engine))
    shared = engine.stats.shared
    with batch_sizes(engine) as rows:
        got = answers(engine, [again(engine) for _ in range(10)])
    assert got == [alone] * 10
    assert max(rows) == 1
    assert engine.stats.shared == shared + 9
    assert all(generated.first_token_s > 0 for generated in got)


def test_another_question_picture_or_setting_is_another_sequence(engine: Engine) -> None:
    requests = [
        again(engine),
        ask(engine, [clip(3, 2)], "What is it"),
        ask(engine, [clip(4, 2)], "What is it?"),
        again(engine, max_new_tokens=5),
        again(engine, stop=["zz"]),
        again(engine, temperature=1.0, seed=1),
        again(engine, temperature=1.0, seed=2),
        again(engine, own_batch=True),
    ]
    shared = engine.stats.shared
    answers(engine, requests)
    assert engine.stats.shared == shared


def test_drawn_answers_are_shared_only_by_a_seed(engine: Engine) -> None:
    shared = engine.stats.shared
    seeded = answers(engine, [again(engine, temperature=1.5, seed=7) for _ in range(3)])
    assert len({generated.text for generated in seeded}) == 1
    assert engine.stats.shared == shared + 2
    free = answers(engine, [again(engine, temperature=1.5) for _ in range(3)])
    assert len({generated.text for generated in free}) > 1
    assert engine.stats.shared == shared + 2


def test_who_cancels_leaves_the_others_their_answer(engine: Engine) -> None:
    alone = single(engine, again(engine))
    gone = threading.Event()
    first = again(engine, should_stop=gone.is_set, on_progress=lambda tokens: gone.set())
    futures = submitted(engine, [first, again(engine), again(engine)])
    with pytest.raises(JobCanceled):
        futures[0].result(30)
    assert [future.result(30) for future in futures[1:]] == [alone] * 2


def test_a_sequence_without_subscribers_ends(engine: Engine) -> None:
    gone = threading.Event()
    requests = [
        again(
            engine,
            should_stop=gone.is_set,
            on_progress=lambda tokens: gone.set() if tokens > 2 else None,
            max_new_tokens=500,
        )
        for _ in range(3)
    ]
    for future in submitted(engine, requests):
        with pytest.raises(JobCanceled):
            future.result(30)
    # It is no part of the shared that was given up.
    assert engine.submit(again(engine, max_new_tokens=500)).result(30).output_tokens > 3


def test_a_late_subscriber_gets_the_text_from_its_start(engine: Engine) -> None:
    alone = single(engine, again(engine, max_new_tokens=40))
    early: list[str] = []
    late: list[str] = []
    futures = []

    def join(tokens: int) -> None:
        if tokens == 10:
            joining.start()
            time.sleep(0.3)  # the engine's thread waits while the other boards
        if tokens == 11:
            joining.join(10)

    def come() -> None:
        futures.append(engine.submit(again(engine, max_new_tokens=40, on_text=late.append)))

    joining = threading.Thread(target=come)
    first = again(engine, max_new_tokens=40, on_text=early.append, on_progress=join)
    assert engine.submit(first).result(30) == alone
    joining.join(10)
    assert futures[0].result(30) == alone
    assert "".join(early).strip() == "".join(late).strip() == alone.text
    assert len(late) < len(early)


def test_a_caller_that_raises_fails_alone(engine: Engine) -> None:
    alone = single(engine, again(engine))

    def deaf(_: object) -> None:
        raise ValueError("deaf")

    def asked() -> bool:
        raise ValueError("asked")

    heard: list[str] = []
    requests = [
        again(engine, on_text=deaf),
        again(engine),
        again(engine, on_progress=deaf),
        again(engine, should_stop=asked),
        again(engine),
        again(engine, on_text=heard.append),
    ]
    futures = submitted(engine, requests)
    for n in (0, 2, 3):
        with pytest.raises(ValueError, match=r"deaf|asked"):
            futures[n].result(30)
    assert [futures[n].result(30) for n in (1, 4, 5)] == [alone] * 3
    assert "".join(heard).strip() == alone.text


def test_a_sequence_that_nobody_streams_is_detokenized_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    tokenizer = engine.prompter._processor.tokenizer
    decode = type(tokenizer).decode

    def count(self: Any, tokens: Any, **settings: Any) -> Any:
        decoded.append(len(tokens))
        return decode(self, tokens, **settings)

    monkeypatch.setattr(type(tokenizer), "decode", count)
    silent = [again(engine, max_new_tokens=40) for _ in range(3)]
    alone, *others = answers(engine, silent)
    assert decoded == [alone.output_tokens]
    heard: list[str] = []
    told = again(engine, max_new_tokens=40, on_text=heard.append)
    assert answers(engine, [told, *silent]) == [alone] * 4 == [alone, *others, alone]
    assert "".join(heard).strip() == alone.text


def test_the_models_fault_reaches_each_as_its_own(engine: Engine) -> None:
    def fail(_: torch.Tensor) -> None:
        raise ValueError("bad weights")

    with before_each_forward(engine, fail):
        futures = submitted(engine, [again(engine) for _ in range(3)])
        errors = [future.exception(30) for future in futures]
    assert all(isinstance(error, ModelError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert {str(error) for error in errors} == {str(errors[0])}


def test_a_future_that_its_caller_canceled_is_left_alone(engine: Engine) -> None:
    alone = single(engine, again(engine))
    with held(engine):
        futures = [engine.submit(again(engine)) for _ in range(3)]
        assert futures[0].cancel()
    assert [future.result(30) for future in futures[1:]] == [alone] * 2


def test_too_long_a_prompt_shares_nothing(engine: Engine) -> None:
    request = replace(again(engine), generation=again(engine, max_new_tokens=4096).generation)
    for _ in range(2):
        with pytest.raises(PromptTooLong):
            engine.submit(request).result(1)


def test_many_callers_at_any_time_get_the_answer_of_their_own_question(engine: Engine) -> None:
    kinds = [(clip(n, 1), text) for n in range(3) for text in ("What?", "Who?")]
    expected = [single(engine, ask(engine, [media], text)) for media, text in kinds]
    wrong: list[object] = []

    def call(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(6):
            n = draw.randrange(len(kinds))
            gone, leaves = threading.Event(), draw.random() < 0.3
            request = ask(
                engine,
                [kinds[n][0]],
                kinds[n][1],
                should_stop=gone.is_set,
                on_progress=lambda tokens, gone=gone, leaves=leaves: (
                    gone.set() if leaves and tokens > 3 else None
                ),
            )
            time.sleep(draw.random() * 0.02)
            try:
                got: object = engine.submit(request).result(60)
            except JobCanceled:
                got = expected[n] if leaves else "canceled"
            if got != expected[n]:
                wrong.append((n, got))

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
    assert not wrong
