"""The check of docstrings, comments and names finds fragments, and leaves sentences alone."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest

CHECK: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[3] / ".ci/check_sentences.py"))

SOURCE = '''"""The life of a job."""
# How it goes on,
# and what it costs.
LIMIT = 5  # Of jobs.
"""Whether it is full."""


class Job:
    """
    Holds a job.

    What comes later is free.
    """

    id: str
    """Its id."""

    def run(self) -> str:
        """So it runs."""
        return """Where strings are no docstrings"""
'''


def openers(lines: Any) -> list[tuple[int, str]]:
    return [(each.line, each.text) for each in CHECK["find_openers"](Path("a.py"), lines)]


def test_a_docstring_of_anything_opens_no_fragment() -> None:
    found = openers(CHECK["read_docstrings"](ast.parse(SOURCE)))
    assert sorted(found) == [(5, "Whether it is full."), (19, "So it runs.")]


def test_the_first_line_of_a_comment_opens_no_fragment() -> None:
    assert openers(CHECK["read_comments"](SOURCE)) == [(2, "How it goes on,"), (4, "Of jobs.")]
    lua = "-- And so on\n-- Or not\nreturn 1 -- free\n"
    assert openers(CHECK["read_lua_comments"](lua)) == [(1, "And so on")]


@pytest.mark.parametrize(
    "text", ["Office hours.", "Orders of frames.", "The sampling.", "Android."]
)
def test_a_word_that_only_begins_like_one_is_free(text: str) -> None:
    assert openers(iter([(1, text)])) == []


@pytest.mark.parametrize("word", ["queued", "taken", "told", "known", "kept", "left"])
def test_a_bare_participle_is_found(word: str) -> None:
    assert CHECK["is_participle"](word)


@pytest.mark.parametrize(
    "word", ["find_queued", "is_known", "open", "reopen", "seed", "listen", "read"]
)
def test_a_verb_is_no_participle(word: str) -> None:
    assert not CHECK["is_participle"](word)


def test_a_property_may_be_a_participle_and_a_function_may_not() -> None:
    tree = ast.parse("@property\ndef known(self): ...\n\nasync def _known(self): ...\n")
    found = [each.text for each in CHECK["find_participles"](Path("a.py"), tree)]
    assert found == ["def _known"]
