"""Every flag of a request has an effect: one that is taken and then forgotten changes no field."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from videoqa.cli.arguments import AnswerFlags, FrameFlags, JobFlags

SAMPLES: dict[str, Any] = {
    "choice": ["a,b"], "stop": ["x"], "tags": ["x"], "metadata": ["a=b"], "start_by": "2h", "times": "1",
    "number": True, "keyframes": True, "guide": True, "summary": True, "shots": True,
}  # fmt: skip
TEXTS = ("model", "cache", "system", "refine", "regex", "tenant", "output")
IN_SEGMENTS = ("segments", "overlap", "summary")
WITH = {
    **{name: {"segments": 30.0} for name in IN_SEGMENTS},
    "min_segment": {"shots": True},
    "tolerance": {"keyframes": True},
}
"""Flags that need another one."""
FLAGS = [
    (group, each.name) for group in (AnswerFlags, FrameFlags, JobFlags) for each in fields(group)
]


@pytest.mark.parametrize(("group", "name"), FLAGS, ids=[name for _, name in FLAGS])
def test_a_flag_changes_the_request(group: Any, name: str, tmp_path: Path) -> None:
    sample = SAMPLES.get(name, "x" if name in TEXTS else 7)
    if name == "schema":
        sample = tmp_path / "schema.json"
        sample.write_text("{}")
    others = {key: value for key, value in WITH.get(name, {}).items() if key != name}
    assert group(**others, **{name: sample}).build() != group(**others).build()
