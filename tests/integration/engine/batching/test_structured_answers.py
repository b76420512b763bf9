"""Answers of a form, beside each other and free ones: in slots and by `generate`, they always parse."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.engine import TOGETHER, answers, ask, before_each_forward, single, small_device
from support.models import clip

from videoqa.contract import (
    AnswerForm,
    ChoiceAnswer,
    JsonAnswer,
    NumberAnswer,
    RegexAnswer,
    read_value,
)
from videoqa.errors import AnswerNotServed
from videoqa_worker.engine import Engine, GenerationRequest
from videoqa_worker.engine.structured.matcher import GrammarCompiler
from videoqa_worker.settings import EngineConfig

SCENE = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "maxLength": 12},
        "people": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", None, 1]}, "maxItems": 3},
    },
    "required": ["place", "people", "tags"],
}
FORMS: list[AnswerForm] = [
    ChoiceAnswer(kind="choice", choices=("yes", "no", "not at all", "a/b.c$", "né")),
    JsonAnswer(kind="json", json_schema=SCENE),
    RegexAnswer(kind="regex", pattern=r"\d{2}:\d{2}/[a-f]{1,3}"),
    NumberAnswer(kind="number", minimum=-2, maximum=9, integer=True),
    NumberAnswer(kind="number"),
]
EACH_PATH = pytest.mark.parametrize("batching", ["slots", "generate"])


def ask_all(engine: Engine, seed: int, **more: Any) -> list[GenerationRequest]:
    """One question for each form, and a free one, with as many tokens as the forms need."""
    settings = {"max_new_tokens": 160, "temperature": 1.3 if seed else 0.0, "seed": seed, **more}
    free = ask(engine, [clip(seed, 2)], "What?", **{**settings, "max_new_tokens": 12})
    return [
        free,
        *(
            ask(engine, [clip(seed + n, 2)], "What?", form=form, **settings)
            for n, form in enumerate(FORMS)
        ),
    ]


def check(form: AnswerForm, text: str) -> None:
    value = read_value(form, text)
    if isinstance(form, JsonAnswer):
        jsonschema.validate(value, form.json_schema)
        assert set(json.loads(text)) == set(SCENE["properties"])  # type: ignore[call-overload]
    if isinstance(form, RegexAnswer):
        assert re.fullmatch(form.pattern, text)


@EACH_PATH
def test_answers_of_all_forms_parse_in_one_batch_and_are_those_of_each_alone(
    engine_of: Callable[..., Engine], batching: str
) -> None:
    engine = engine_of("interleave", **TOGETHER, batching=batching)
    for seed in (0, 1):
        requests = ask_all(engine, seed)
        found = answers(engine, requests)
        for form, answer in zip(FORMS, found[1:], strict=True):
            assert answer.finish_reason == "stop"
            check(form, answer.text)
        alone = [single(engine, request).text for request in requests]
        assert [answer.text for answer in found] == alone


def test_both_paths_write_the_same(engine_of: Callable[..., Engine]) -> None:
    engines = [engine_of("interleave", **TOGETHER, batching=each) for each in ("slots", "generate")]
    slots, padded = (answers(engine, ask_all(engine, 2)) for engine in engines)
    assert [one.text for one in slots] == [one.text for one in padded]


@EACH_PATH
def test_only_the_limit_cuts_an_answer_off_and_streamed_text_is_that_of_the_answer(
    engine_of: Callable[..., Engine], batching: str
) -> None:
    engine, heard = engine_of("interleave", **TOGETHER, batching=batching), list[str]()
    form = JsonAnswer(kind="json", json_schema=SCENE)
    stops = ['"', "people", "}"]
    whole = ask(engine, [clip(3, 2)], "What?", form=form, max_new_tokens=160, stop=stops)
    whole = GenerationRequest(
        whole.inputs, generation=whole.generation, form=form, on_text=heard.append
    )
    short = ask(engine, [clip(3, 2)], "What?", form=form, max_new_tokens=5)
    first, second = answers(engine, [whole, short])
    check(form, first.text)
    assert "".join(heard).strip() == first.text
    assert (second.finish_reason, second.output_tokens) == ("length", 5)
    assert first.text.startswith(second.text)


def test_an_answer_that_was_preempted_is_the_same(checkpoint: Callable[[str], Path]) -> None:
    """Its engine is its own: after that it admits fewer at a time, of which other tests see the batches."""
    config = EngineConfig(
        model=str(checkpoint("interleave")), device="cpu", cpu_threads=1, **TOGETHER
    )
    with Engine(config) as engine:
        requests = ask_all(engine, 4)
        expected = [single(engine, request).text for request in requests]
        with before_each_forward(engine, small_device(2)):
            found = answers(engine, requests)
        assert engine.stats.preempted
        assert [one.text for one in found] == expected


@EACH_PATH
def test_words_are_chosen_by_a_tokenizer_of_whole_words(
    engine_of: Callable[..., Engine], batching: str
) -> None:
    engine = engine_of("demo", batching=batching)
    form = ChoiceAnswer(kind="choice", choices=("a red circle", "a blue square", "no, it is"))
    assert single(engine, ask(engine, [clip(1, 2)], "What?", form=form)).text in form.choices


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (ChoiceAnswer(kind="choice", choices=("red", "crimson")), "crimson"),
        (JsonAnswer(kind="json"), "no tokens"),
        (
            JsonAnswer(kind="json", json_schema={"type": "number", "minimum": 2, "maximum": 1}),
            "minimum",
        ),
        (RegexAnswer(kind="regex", pattern="(a"), "unclosed"),
    ],
)
def test_a_form_that_the_model_cannot_write_is_refused_and_the_engine_goes_on(
    engine_of: Callable[..., Engine], form: AnswerForm, reason: str
) -> None:
    engine = engine_of("demo")
    with pytest.raises(AnswerNotServed, match=reason):
        single(engine, ask(engine, [clip(1, 2)], "What?", form=form))
    assert single(engine, ask(engine, [clip(1, 2)], "What?")).text


def test_a_tokenizer_of_another_kind_serves_free_text_alone() -> None:
    compiler = GrammarCompiler(object(), [], 5)
    compiler.read()
    with pytest.raises(AnswerNotServed, match="no kind that structured answers work with"):
        compiler.make(NumberAnswer(kind="number"))
