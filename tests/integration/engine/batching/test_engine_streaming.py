"""The answer's text as it comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.engine import VARIED, ask, single, submitted
from support.models import clip

from videoqa.errors import JobCanceled
from videoqa_worker.engine import Engine
from videoqa_worker.engine.sequence.detokenizer import Detokenizer


@pytest.fixture(params=["slots", "generate"])
def engine(request: pytest.FixtureRequest, engine_of: Callable[..., Engine]) -> Engine:
    return engine_of("interleave", batching=request.param)


def test_the_streamed_text_is_the_answer(engine: Engine) -> None:
    pieces: list[str] = []
    told = single(engine, ask(engine, [clip(1, 4)], "What?", on_text=pieces.append, **VARIED))
    assert "".join(pieces).strip() == told.text
    assert len(pieces) > 10
    assert 0 < told.first_token_s < 60


def test_streamed_text_never_shows_part_of_a_stop_string(engine: Engine) -> None:
    whole = single(engine, ask(engine, [clip(1, 4)], "What?", **VARIED)).text
    stop = whole[11:16]
    pieces: list[str] = []
    told = single(
        engine,
        ask(engine, [clip(1, 4)], "What?", on_text=pieces.append, stop=(stop,), **VARIED),
    )
    assert told.finish_reason == "stop_string"
    assert "".join(pieces).strip() == told.text == whole[:11].strip()


def test_text_held_back_for_a_stop_string_is_sent_in_the_end(engine: Engine) -> None:
    whole = single(engine, ask(engine, [clip(1, 4)], "What?", **VARIED)).text
    pieces: list[str] = []
    stop = whole[-3:] + "never"
    told = single(
        engine,
        ask(engine, [clip(1, 4)], "What?", on_text=pieces.append, stop=(stop,), **VARIED),
    )
    assert "".join(pieces).strip() == told.text == whole


def test_a_listener_that_raises_fails_its_own_sequence_only(engine: Engine) -> None:
    def broken(text: str) -> None:
        raise LookupError("gone")

    neighbour = ask(engine, [clip(2, 3)], "Where?")
    alone = single(engine, neighbour)
    futures = submitted(
        engine, [ask(engine, [clip(1, 4)], "What?", on_text=broken, **VARIED), neighbour]
    )
    with pytest.raises(LookupError):
        futures[0].result(60)
    assert futures[1].result(60) == alone


def test_no_text_is_sent_after_a_cancel(engine: Engine) -> None:
    pieces: list[str] = []
    request = ask(
        engine,
        [clip(1, 4)],
        "What?",
        on_text=pieces.append,
        should_stop=lambda: len(pieces) >= 5,
        **VARIED,
    )
    with pytest.raises(JobCanceled):
        single(engine, request)
    assert len(pieces) == 5


def test_characters_of_several_tokens_come_whole(engine: Engine) -> None:
    """The tiny tokenizer has a token for each byte."""
    tokenizer = engine._loaded.tokenizer
    text = "naïve 日本語 🙂 done"
    words, told = Detokenizer(tokenizer), []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        told.append(words.add(token))
    assert told[-1] == text
    assert all("\ufffd" not in piece and text.startswith(piece) for piece in told)
    assert len(set(told)) == len(text)
