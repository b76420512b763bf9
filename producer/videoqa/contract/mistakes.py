"""Mistakes that pydantic finds, in the words of our messages: the field, what was got, and what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from videoqa.errors import InvalidRequest
from videoqa.redaction import redact_url

__all__ = ["describe_mistake", "refuse_mistake"]

_EXPECTED: Mapping[str, str] = {
    "missing": "a value",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "date_type": "a day, as 2026-12-31",
    "date_parsing": "a day, as 2026-12-31",
    "date_from_datetime_parsing": "a day, as 2026-12-31",
    "datetime_type": "a time, as 2026-12-31T18:00:00Z",
    "datetime_parsing": "a time, as 2026-12-31T18:00:00Z",
    "datetime_from_date_parsing": "a time, as 2026-12-31T18:00:00Z",
    "timezone_aware": "a time with its zone, as 2026-12-31T18:00:00Z",
    "extra_forbidden": "no field of this name",
}
"""Words for what was expected, by pydantic's type of the mistake."""


def describe_mistake(found: ErrorDetails | Mapping[str, Any], *, is_shown: bool = True) -> str:
    """Describes a mistake without its field, as "got 257, expected at most 256".

    Arguments:
        is_shown: the value that was got may be in the message, unless it is an object or a list.
    """
    kind, message = found["type"], found["msg"].removeprefix("Value error, ")
    got = _show(found) if is_shown else ""
    if kind not in _EXPECTED:
        if kind in ("value_error", "assertion_error"):  # a message of ours
            return message + (f" (got {got})" if got else "")
        return (f"got {got}; " if got else "") + message
    context = found.get("ctx") or {}
    if kind == "missing":
        got = "none"
    elif context.get("actual_length") is not None:
        got = str(context["actual_length"])
    expected = _EXPECTED[kind].format_map(context)
    return (f"got {got}, " if got else "") + f"expected {expected}"


def refuse_mistake(
    found: ErrorDetails | Mapping[str, Any], place: Sequence[int | str] | None = None
) -> InvalidRequest:
    """Makes the error of a mistake.

    Arguments:
        place: path of its field; None: pydantic's.
    """
    param = ".".join(map(str, found["loc"] if place is None else place))
    return InvalidRequest(f"{param:.100}: {describe_mistake(found)}", param=param[:100])


def _show(found: Mapping[str, Any] | ErrorDetails) -> str:
    """Returns the value that was got, unless it may be secret as a whole: the JSON, or metadata."""
    got = found.get("input")
    if found["type"] == "json_invalid" or "metadata" in found["loc"]:
        return ""
    if isinstance(got, str):
        return f"{redact_url(got)!r:.80}"
    if isinstance(got, bool | int | float | None):
        return f"{json.dumps(got):.80}"
    if isinstance(got, dict):
        return "an object"
    return "a list" if isinstance(got, list | tuple) else ""
