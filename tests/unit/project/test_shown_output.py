"""The comparison of shown output fails where it should."""

from __future__ import annotations

import pytest
from support.shown_output import find_difference


@pytest.mark.parametrize(
    ("language", "shown", "printed", "is_equal"),
    [
        ("json", '{"a": 1}', '{"a": 1, "b": 2}', True),
        ("json", '{"a": 1}', '{"b": 2}', False),
        ("json", '{"a": [1]}', '{"a": [1, 2]}', False),
        ("json", '{"id": "job_..."}', '{"id": "job_12"}', True),
        ("json", '{"id": "job_..."}', '{"id": "12"}', False),
        ("json", '{"a": null}', "{}", False),
        ("json", "{}", "nothing", False),
        ("text", "a\n...\nb ... d\n", "a\nx\ny\nb c d\n", True),
        ("text", "a\n...\nb ... d\n", "a\nb c d\n", True),
        ("text", "a\n", "a\nb\n", False),
        ("text", "a.c\n", "abc\n", False),
    ],
)
def test_dots_stand_for_anything_and_nothing_else_does(
    language: str, shown: str, printed: str, is_equal: bool
) -> None:
    assert (find_difference(language, shown, printed) is None) is is_equal
