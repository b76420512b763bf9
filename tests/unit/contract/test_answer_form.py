"""Forms of answers: their short spellings, what is refused at submit and where, and the values of texts."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import BaseModel

from videoqa import errors
from videoqa.contract import (
    ChoiceAnswer,
    JobRequest,
    JsonAnswer,
    NumberAnswer,
    ValueUnreadable,
    close_objects,
    parse_request,
    parse_stored,
    read_value,
)


class Scene(BaseModel):
    place: str
    people: int


def make(answer: Any, /, **fields: Any) -> JobRequest:
    question = {"id": "q1", "text": "What?", "answer": answer}
    return parse_request({"inputs": "s3://b/a.mp4", "questions": [question], **fields})


@pytest.mark.parametrize(
    ("given", "kind"),
    [(["a", "b"], "choice"), ("number", "number"), ("json", "json"), (Scene, "json"), ({"kind": "text"}, "text")],
)  # fmt: skip
def test_a_form_has_short_spellings_and_survives_a_record(given: Any, kind: str) -> None:
    request = make(given)
    form = request.questions[0].answer
    assert form is not None
    assert form.kind == kind
    record = request.model_dump_json(exclude_defaults=True)
    assert parse_stored(JobRequest, record) == request


def test_a_question_without_a_form_has_that_of_its_request_and_text_none() -> None:
    form = make(None, answer=["a", "b"])
    assert form.get_form(form.questions[0]) == ChoiceAnswer(kind="choice", choices=("a", "b"))
    text = make("text", answer=["a", "b"])
    assert text.get_form(text.questions[0]) is None
    assert make(None).get_form(make(None).questions[0]) is None


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(300):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"properties": {"a": {"not": {}}}}, ".properties.a.not"),
        ({"properties": {"a": {"items": {"type": "strin"}}}}, ".properties.a.items.type"),
        ({"anyOf": [{}, {"$ref": "#/$defs/none"}]}, ".anyOf.1.$ref"),
        ({"$ref": "http://elsewhere/schema"}, ".$ref"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, ".$defs.a.$ref"),
        ({"type": "string", "pattern": "(?=a)b"}, ".pattern"),
        ({"type": "string", "format": "iri"}, ".format"),
        ({"type": "array", "uniqueItems": True}, ".uniqueItems"),
        ({"minLength": 2.5}, ".minLength"),
        ({"x-guidance": {"lenient": True}}, ".x-guidance"),
        ({"properties": []}, ".properties"),
        ({"items": 3}, ".items"),
        ({"properties": {f"p{n}": {} for n in range(1000)}}, ".properties.p399"),
        ({"enum": ["x" * 70_000]}, ""),
        (DEEP, ".items" * 33),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_served_is_refused_with_the_place(schema: Any, param: str) -> None:
    with pytest.raises(errors.AnswerUnsupported) as caught:
        make({"kind": "json", "json_schema": schema})
    assert caught.value.param == f"questions.0.answer.json_schema{param}"[:300]


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?!a)b", "a{5000}", "(" * 60 + "a" + ")" * 60])
def test_a_pattern_that_cannot_be_served_is_refused(pattern: str) -> None:
    with pytest.raises(errors.AnswerUnsupported, match="expected") as caught:
        make({"kind": "regex", "pattern": pattern})
    assert caught.value.param == "questions.0.answer.pattern"
    with pytest.raises(errors.AnswerUnsupported) as caught:
        make(None, answer={"kind": "regex", "pattern": pattern})
    assert caught.value.param == "answer.pattern"


def test_what_looks_like_look_around_within_a_class_or_behind_an_escape_is_taken() -> None:
    make({"kind": "regex", "pattern": r"[(?=)]{3}\(?=\{9999\}[{9999}]"})


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"kind": "choice", "choices": ["a"]}, "questions.0.answer.choices"),
        ({"kind": "choice", "choices": ["a", "a"]}, "questions.0.answer.choices"),
        ({"kind": "choice", "choices": ["a", " b"]}, "questions.0.answer.choices"),
        ({"kind": "number", "minimum": 3, "maximum": 2}, "questions.0.answer"),
        ({"kind": "regexp", "pattern": "a"}, "questions.0.answer"),
        ({"kind": "regex", "patern": "a"}, "questions.0.answer.patern"),
    ],
)
def test_a_form_that_is_none_is_refused_with_the_place(form: Any, param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        make(form)
    assert caught.value.param == param
    assert "did you mean pattern" in caught.value.message or "patern" not in param


def test_the_largest_hostile_schemas_are_refused_in_little_time() -> None:
    wide = {"properties": {f"p{n}": {"anyOf": [{}] * 50} for n in range(20_000)}}
    nested = json.loads('{"items":' * 900 + "{}" + "}" * 900)
    refs = {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(390)} | {"d390": {}}}
    for schema in (wide, nested, refs):
        form = JsonAnswer.model_construct(kind="json", json_schema=schema)
        begun = time.process_time()
        with pytest.raises(errors.AnswerUnsupported):
            make(form)
        assert (
            time.process_time() - begun < 5
        )  # some ms; what grows with the square would take minutes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, "é"]}', {"a": [1, 2.5, None, "é"]}),
        ("1" * 400, int("1" * 400)),
        ('{"a": 1e999}', None),
        ("1" * 5000, None),
        ('{"a": 1', None),
        ("NaN", None),
        ('"\\ud800"', None),
        ("[" * 100_000, None),
    ],
)
def test_json_has_a_value_or_is_unreadable(text: str, value: Any) -> None:
    form = JsonAnswer(kind="json")
    if value is None:
        with pytest.raises(ValueUnreadable):
            read_value(form, text)
    else:
        assert read_value(form, text) == value


def test_a_number_is_read_within_its_bounds() -> None:
    form = NumberAnswer(kind="number", minimum=0, maximum=10)
    assert read_value(form, "7.5") == 7.5
    assert read_value(form, "7") == 7
    for text in ("11", "-1", "1e1", "seven", ""):
        with pytest.raises(ValueUnreadable):
            read_value(form, text)


def test_objects_are_closed_unless_parts_of_them_stand_elsewhere() -> None:
    closed = close_objects(Scene.model_json_schema())
    assert closed["additionalProperties"] is False
    nested = {"items": {"properties": {"a": {}}}, "uniqueItems": False}
    assert close_objects(nested) == {
        "items": {"properties": {"a": {}}, "additionalProperties": False}
    }
    for schema in (
        {"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
    ):
        assert close_objects(schema) == schema
