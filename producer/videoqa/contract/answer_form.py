"""AnswerForm: the form that an answer has to have, to which decoding is held, and the value of its text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, Field, JsonValue, field_validator, model_validator

from videoqa.contract.json_schema import find_schema_mistakes
from videoqa.contract.model import Model
from videoqa.contract.pattern import find_pattern_mistake

__all__ = [
    "FORMS",
    "AnswerForm",
    "AnswerFormOrShort",
    "ChoiceAnswer",
    "JsonAnswer",
    "NumberAnswer",
    "RegexAnswer",
    "TextAnswer",
    "ValueUnreadable",
    "find_form_mistakes",
    "read_value",
]

MOST_CHOICES = 256
_MOST_DIGITS = 4_000
"""Digits of a whole number in a value; Python reads no more than 4,300."""


class TextAnswer(Model):
    """An answer of free text."""

    kind: Literal["text"]


class ChoiceAnswer(Model):
    """An answer that is one of these texts; its value is that text."""

    kind: Literal["choice"]
    choices: tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...] = Field(
        min_length=2, max_length=MOST_CHOICES
    )

    @field_validator("choices")
    @classmethod
    def _check(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(choices)) < len(choices):
            raise ValueError("got the same choice twice, expected each once")
        if any(choice != choice.strip() or not choice.isprintable() for choice in choices):
            raise ValueError(
                "got a choice with space around it or a control character, expected printable text"
            )
        return choices


class JsonAnswer(Model):
    """An answer in JSON that a schema describes; its value is what the JSON stands for."""

    kind: Literal["json"]
    json_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object"})
    """JSON Schema (2020-12) of the answer. An object with `properties` has only these, unless
    `additionalProperties` says otherwise."""


class RegexAnswer(Model):
    """An answer that a regular expression matches as a whole; its value is its text."""

    kind: Literal["regex"]
    pattern: str = Field(min_length=1, max_length=4096)
    """Regular expression in the syntax of Rust's regex crate: no look-around, no back references."""


class NumberAnswer(Model):
    """An answer that is one number, without a unit; its value is that number."""

    kind: Literal["number"]
    minimum: float | None = Field(default=None, ge=-1e15, le=1e15)
    maximum: float | None = Field(default=None, ge=-1e15, le=1e15)
    integer: bool = False
    """True: whole numbers only."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and low > high:
            raise ValueError(f"got minimum {low:g} above maximum {high:g}")
        return self


AnswerForm = Annotated[
    TextAnswer | ChoiceAnswer | JsonAnswer | RegexAnswer | NumberAnswer,
    Field(discriminator="kind"),
]
FORMS: dict[int | str, type[Model]] = {
    "text": TextAnswer, "choice": ChoiceAnswer, "json": JsonAnswer, "regex": RegexAnswer, "number": NumberAnswer,
}  # fmt: skip
"""Models of all forms, by their kind."""
_ShortName = Literal["text", "json", "number"]


def _expand(value: Any) -> Any:
    """Turns a list into a choice, the name of a form into it, and a pydantic model into its JSON schema."""
    if isinstance(value, (list, tuple)):
        return {"kind": "choice", "choices": value}
    if isinstance(value, str) and value in get_args(_ShortName):
        return {"kind": value}
    if isinstance(value, type) and issubclass(value, BaseModel):
        return {"kind": "json", "json_schema": value.model_json_schema()}
    return value


AnswerFormOrShort = Annotated[
    AnswerForm, BeforeValidator(_expand, json_schema_input_type=AnswerForm | list[str] | _ShortName)
]


def find_form_mistakes(form: AnswerForm) -> Iterator[tuple[str, str]]:
    """Yields what no worker could serve in a form: the path below the form, and a message."""
    if isinstance(form, JsonAnswer):
        yield from find_schema_mistakes(form.json_schema, "json_schema")
    elif isinstance(form, RegexAnswer) and (mistake := find_pattern_mistake(form.pattern)):
        yield "pattern", mistake


class ValueUnreadable(ValueError):
    """The text has not the form that was asked for."""


def read_value(form: AnswerForm, text: str) -> JsonValue:
    """Returns the value of an answer; None for free text.

    A constraint in the engine has seen to the form; a server that ignores it has not.

    Raises:
        ValueUnreadable: the text has not the form, or a number in it is beyond a float's range.
    """
    match form:
        case TextAnswer():
            return None
        case RegexAnswer():
            return text
        case ChoiceAnswer(choices=choices):
            if text not in choices:
                raise ValueUnreadable("it is none of the choices")
            return text
        case JsonAnswer():
            return _read_json(text)
        case NumberAnswer():
            return _read_number(form, text)


def _read_json(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(
            text, parse_float=_read_float, parse_int=_read_int, parse_constant=_refuse_constant
        )
        if "\\u" in text:  # half of a surrogate pair is no text
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueUnreadable(f"it is no JSON: {error}") from error
    return value


def _read_number(form: NumberAnswer, text: str) -> int | float:
    if not re.fullmatch(r"-?[0-9]+" if form.integer else r"-?[0-9]+(\.[0-9]+)?", text):
        raise ValueUnreadable("it is no number")
    value = _read_float(text) if "." in text else _read_int(text)
    low, high = form.minimum, form.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueUnreadable("the number is out of bounds")
    return value


def _read_float(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError("a number is beyond the range of a float")
    return value


def _read_int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has more than {_MOST_DIGITS} digits")
    return int(text)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
