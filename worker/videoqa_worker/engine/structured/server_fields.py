"""The form of an answer in the fields of a model server's protocol."""

from __future__ import annotations

from typing import Any

from videoqa.contract import (
    AnswerForm,
    ChoiceAnswer,
    JsonAnswer,
    NumberAnswer,
    RegexAnswer,
    close_objects,
)
from videoqa_worker.engine.structured.grammar import write_number

__all__ = ["list_server_fields"]


def list_server_fields(form: AnswerForm | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fields of OpenAI's chat completions, and those that vLLM adds to them.

    JSON is asked for by OpenAI's `response_format`; for the others the protocol has nothing, and vLLM has
    `structured_outputs`.
    """
    match form:
        case JsonAnswer(json_schema=schema):
            return {"response_format": _describe_json(close_objects(schema))}, {}
        case ChoiceAnswer(choices=choices):
            return {}, {"structured_outputs": {"choice": [*choices]}}
        case RegexAnswer(pattern=pattern):
            return {}, {"structured_outputs": {"regex": pattern}}
        case NumberAnswer():
            written = write_number(form)
            if isinstance(written, str):
                return {}, {"structured_outputs": {"regex": written}}
            return {"response_format": _describe_json(written)}, {}
    return {}, {}


def _describe_json(schema: dict[str, Any]) -> dict[str, Any]:
    described = {"name": "answer", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": described}
