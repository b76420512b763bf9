"""Flags of the form of an answer: `--choice`, `--schema`, `--regex` and `--number`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from videoqa.errors import InvalidRequest

__all__ = ["Choice", "Number", "Regex", "Schema", "build_form"]

_PANEL = "Answer"

Choice = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A,B,...",
        rich_help_panel=_PANEL,
        help="The answer is one of these; given several times, each is one choice, commas and all.",
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=_PANEL,
        help="The answer is JSON that the JSON Schema in this file describes.",
    ),
]
Regex = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        rich_help_panel=_PANEL,
        help="The answer matches this regular expression as a whole.",
    ),
]
Number = Annotated[
    bool, typer.Option("--number", rich_help_panel=_PANEL, help="The answer is a number.")
]


def build_form(
    choice: Sequence[str] | None, schema: Path | None, regex: str | None, *, number: bool
) -> dict[str, Any] | None:
    """Returns the form that the flags stand for; None if none is given.

    Raises:
        InvalidRequest: more than one is given, or the file has no JSON object.
    """
    forms: list[dict[str, Any]] = []
    if choice:
        choices = choice[0].split(",") if len(choice) == 1 else choice
        forms.append({"kind": "choice", "choices": [each.strip() for each in choices]})
    if schema is not None:
        forms.append({"kind": "json", "json_schema": _read_schema(schema)})
    if regex is not None:
        forms.append({"kind": "regex", "pattern": regex})
    if number:
        forms.append({"kind": "number"})
    if len(forms) > 1:
        raise InvalidRequest(
            "got more than one of --choice, --schema, --regex and --number, expected one of them or none",
            param="answer",
        )
    return forms[0] if forms else None


def _read_schema(path: Path) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"--schema {path}: {error}", param="answer.json_schema") from error
    if not isinstance(found, dict):
        raise InvalidRequest(
            f"--schema {path}: expected a JSON Schema, which is an object",
            param="answer.json_schema",
        )
    return found
