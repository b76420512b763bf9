"""The flags of the form of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videoqa.cli.answer_form import build_form
from videoqa.errors import InvalidRequest


@pytest.mark.parametrize(
    ("flags", "form"),
    [
        ({}, None),
        ({"choice": ["yes, no"]}, {"kind": "choice", "choices": ["yes", "no"]}),
        ({"choice": ["a, b", "c"]}, {"kind": "choice", "choices": ["a, b", "c"]}),
        ({"regex": "a+"}, {"kind": "regex", "pattern": "a+"}),
        ({"number": True}, {"kind": "number"}),
    ],
)
def test_one_flag_stands_for_a_form(flags: dict[str, Any], form: dict[str, Any] | None) -> None:
    given = {"choice": None, "schema": None, "regex": None, "number": False} | flags
    assert build_form(**given) == form


def test_a_schema_is_read_from_its_file_and_two_forms_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.json"
    path.write_text(json.dumps({"type": "object"}))
    assert build_form(None, path, None, number=False) == {
        "kind": "json",
        "json_schema": {"type": "object"},
    }
    with pytest.raises(InvalidRequest, match="expected one of them"):
        build_form(["a", "b"], path, None, number=False)
    for text in ("[]", "{", ""):
        path.write_text(text)
        with pytest.raises(InvalidRequest, match=r"scene\.json"):
            build_form(None, path, None, number=False)
