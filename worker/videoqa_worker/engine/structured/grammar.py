"""Grammars of llguidance for the forms of answers."""

from __future__ import annotations

import json
import re
from typing import Any

from videoqa.contract import (
    AnswerForm,
    ChoiceAnswer,
    JsonAnswer,
    NumberAnswer,
    RegexAnswer,
    TextAnswer,
    close_objects,
)

__all__ = ["write_grammar", "write_number"]

_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}
"""JSON as `json.dumps` writes it. Free white space would let a model write nothing else for ever, and `\\u` halves of
surrogate pairs, which are no text."""
_INTEGER = r"-?(0|[1-9][0-9]{0,14})"
_DECIMAL = _INTEGER + r"(\.[0-9]{1,15})?"


def write_grammar(form: AnswerForm) -> str:
    """Returns the grammar; it may begin with one space, as the first word of many tokenizers does."""
    inner = _write(form)
    outer = {"lark_grammar": 'start: " "? @answer'}
    return json.dumps({"grammars": [outer, {"name": "answer", **inner}]})


def _write(form: AnswerForm) -> dict[str, Any]:
    match form:
        case TextAnswer():
            return _write_regex(r"[\s\S]*")
        case ChoiceAnswer(choices=choices):
            return _write_regex("|".join(map(_quote, choices)))
        case RegexAnswer(pattern=pattern):
            return _write_regex(pattern)
        case JsonAnswer(json_schema=schema):
            return _write_json(close_objects(schema))
        case NumberAnswer():
            number = write_number(form)
            return _write_regex(number) if isinstance(number, str) else _write_json(number)


def write_number(form: NumberAnswer) -> str | dict[str, Any]:
    """Returns a regular expression for a number without bounds, else a JSON schema."""
    if form.minimum is None and form.maximum is None:
        return _INTEGER if form.integer else _DECIMAL
    return {
        "type": "integer" if form.integer else "number",
        "minimum": -1e15 if form.minimum is None else form.minimum,
        "maximum": 1e15 if form.maximum is None else form.maximum,
    }


def _quote(text: str) -> str:
    """Quotes text for a regular expression of Rust, which knows fewer escapes than Python's."""
    return re.sub(r"[\\.+*?()|\[\]{}^$#&\-~/]", lambda found: f"\\{found[0]}", text)


def _write_json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"json_schema": {**schema, "x-guidance": _JSON_STYLE}}


def _write_regex(pattern: str) -> dict[str, Any]:
    from llguidance import regex_to_lark

    return {"lark_grammar": f"start: /{regex_to_lark(pattern, 'd')}/"}
