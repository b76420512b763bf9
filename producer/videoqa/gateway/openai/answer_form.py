"""The form of an answer in a chat completion: OpenAI's `response_format`, and what vLLM has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videoqa.errors import InvalidRequest

__all__ = ["FORM_FIELDS", "read_form"]

FORM_FIELDS = (
    "response_format", "structured_outputs", "guided_json", "guided_choice", "guided_regex",
)  # fmt: skip
_OF_VLLM = {
    "json": ("json", "json_schema"),
    "choice": ("choice", "choices"),
    "regex": ("regex", "pattern"),
}
"""Kind of the form and its field, by vLLM's names."""


def read_form(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the form that a body asks for, and the fields of the body by those of the request that they became.

    Raises:
        InvalidRequest: more than one is asked for, or one that is not supported.
    """
    given = [name for name in FORM_FIELDS if body.get(name) is not None]
    if body.get("response_format") == {"type": "text"}:
        given.remove("response_format")
    if not given:
        return {}, {}
    if len(given) > 1:
        raise InvalidRequest(
            f"{given[1]}: got it beside {given[0]}, expected one of them", param=given[1]
        )
    (name,) = given
    if name == "response_format":
        return _read_response_format(body[name])
    if name == "structured_outputs":
        return _read_structured_outputs(body[name])
    kind, field = _OF_VLLM[name.removeprefix("guided_")]
    return {"kind": kind, field: body[name]}, {"answer": name, f"answer.{field}": name}


def _read_response_format(given: Any) -> tuple[dict[str, Any], dict[str, str]]:
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "json_object" and len(given) == 1:
        return {"kind": "json"}, {"answer": "response_format"}
    where = "response_format.json_schema"
    described = given.get("json_schema") if isinstance(given, dict) else None
    if kind != "json_schema" or not isinstance(described, dict) or len(given) > 2:
        raise InvalidRequest(
            'response_format: expected {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", '
            '"json_schema": {"name": ..., "schema": ...}}',
            param="response_format",
        )
    if described.keys() - {"name", "description", "schema", "strict"}:
        raise InvalidRequest(
            f"{where}: expected name, schema, strict and description alone", param=where
        )
    form = {"kind": "json"}
    if described.get("schema") is not None:
        form["json_schema"] = described["schema"]
    return form, {"answer": where, "answer.json_schema": f"{where}.schema"}


def _read_structured_outputs(given: Any) -> tuple[dict[str, Any], dict[str, str]]:
    where = "structured_outputs"
    asked = (
        {name: value for name, value in given.items() if value is not None}
        if isinstance(given, dict)
        else {}
    )
    if len(asked) != 1 or not asked.keys() <= _OF_VLLM.keys():
        raise InvalidRequest(f"{where}: expected one of json, choice and regex", param=where)
    ((name, value),) = asked.items()
    kind, field = _OF_VLLM[name]
    return {"kind": kind, field: value}, {
        "answer": where,
        f"answer.{field}": f"{where}.{name}",
    }
