"""RequestFields, which type checkers see, is what JobRequest takes: the same fields with the same types."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import AwareDatetime, BaseModel

from videoqa.contract import (
    ChoiceAnswer,
    ChoiceAnswerFields,
    Generation,
    GenerationFields,
    Image,
    ImageFields,
    JobRequest,
    JsonAnswer,
    JsonAnswerFields,
    Model,
    NumberAnswer,
    NumberAnswerFields,
    Question,
    QuestionFields,
    RegexAnswer,
    RegexAnswerFields,
    RequestFields,
    RequestKeywords,
    Sampling,
    SamplingFields,
    TextAnswer,
    TextAnswerFields,
    Video,
    VideoFields,
    Webhook,
    WebhookFields,
)

PAIRS: dict[type[Model], Any] = {
    Video: VideoFields, Image: ImageFields, Question: QuestionFields, Sampling: SamplingFields,
    Generation: GenerationFields, Webhook: WebhookFields, JobRequest: RequestFields, TextAnswer: TextAnswerFields,
    ChoiceAnswer: ChoiceAnswerFields, JsonAnswer: JsonAnswerFields, RegexAnswer: RegexAnswerFields,
    NumberAnswer: NumberAnswerFields,
}  # fmt: skip
TEXTS = frozenset({str})
ALSO: dict[str, set[Any]] = {
    "url": {Path}, "summary": {bool}, "webhook": {str},
    "answer": {type[BaseModel], Literal["text", "json", "number"], (list, TEXTS), (tuple, TEXTS)},
}  # fmt: skip
"""Types that validators turn into the field's own."""
ITEMS: dict[str, set[Any]] = {"inputs": {str, Path}, "questions": {str}}
"""Types that validators turn into a field's items; one item may stand for a sequence of one."""


def members(annotation: Any) -> set[Any]:
    """The types of a union, without annotations; each literal and sequence as a whole."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return set().union(*map(members, get_args(annotation)))
    return {datetime if annotation is AwareDatetime else annotation}


def widen(name: str, annotation: Any) -> set[Any]:
    """The types that a caller may write for a field of this type, in comparable form."""
    found: set[Any] = set(ALSO.get(name, ()))
    for one in members(annotation):
        origin = get_origin(one)
        if origin is tuple:
            items = frozenset(widen("", get_args(one)[0]) | ITEMS.get(name, set()))
            if name in ITEMS:
                found |= items
            kinds = (list, tuple) if items == {str} else (Sequence,)
            found |= {(kind, items) for kind in kinds}
        elif origin is dict:
            found.add((Mapping, tuple(frozenset(members(arg)) for arg in get_args(one))))
        elif isinstance(one, type) and issubclass(one, Model):
            found |= {one, PAIRS[one]}
        else:
            found.add(one)
    return found


def written(hint: Any) -> set[Any]:
    """A hint of a TypedDict in the same form."""
    found: set[Any] = set()
    for one in members(hint):
        origin = get_origin(one)
        if origin in (list, tuple, Sequence):
            found.add((origin, frozenset(members(get_args(one)[0]))))
        elif origin is Mapping:
            found.add((Mapping, tuple(frozenset(members(arg)) for arg in get_args(one))))
        else:
            found.add(one)
    return found


@pytest.mark.parametrize("model", PAIRS, ids=lambda model: model.__name__)
def test_a_dictionary_has_the_fields_and_types_of_its_model(model: type[Model]) -> None:
    hints = get_type_hints(PAIRS[model])
    assert hints.keys() == model.model_fields.keys()
    for name, field in model.model_fields.items():
        # A webhook's URL is no file's.
        kind = "" if model is Webhook else name
        assert written(hints[name]) == widen(kind, field.annotation), name


@pytest.mark.parametrize("model", PAIRS, ids=lambda model: model.__name__)
def test_a_dictionary_needs_what_its_model_needs(model: type[Model]) -> None:
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    if model is Image:
        required.add("kind")  # an input without one is a video
    assert PAIRS[model].__required_keys__ == required


def test_keywords_are_the_same_fields_and_none_is_needed() -> None:
    assert get_type_hints(RequestKeywords) == get_type_hints(RequestFields)
    assert not RequestKeywords.__required_keys__


def test_literals_are_compared_by_value() -> None:
    """The tests above rely on it."""
    assert members(Literal["a", "b"]) != members(Literal["a"])
    assert widen("tags", tuple[str, ...]) == {(list, frozenset({str})), (tuple, frozenset({str}))}
