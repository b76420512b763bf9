"""Inputs and question of `ask` and `submit`, told apart before anything is submitted.

A question without quotes reaches the command word by word. What is no file and no URL is therefore refused
here, with the command as it was meant.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from videoqa.errors import InvalidRequest

__all__ = ["split_question"]


def split_question(names: Sequence[str], questions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the inputs and the questions of `INPUT... QUESTION`, or of `INPUT... --question TEXT`.

    Raises:
        InvalidRequest: there is no question, or it has no quotes, or a file is not there.
    """
    if questions:
        for name in names:
            _check_input(name)
        return list(names), list(questions)
    if len(names) < 2:
        raise InvalidRequest(
            "got no question, expected: INPUT... QUESTION, or INPUT... --question TEXT"
        )
    *inputs, question = names
    words = [name for name in names if not _is_input(name) and not _looks_like_file(name)]
    if words and words != [question]:
        files = [name for name in names if name not in words]
        raise InvalidRequest(
            f"got {words[0]!r} in the place of a file or URL, expected the question last and in quotes: "
            + _write_command(names, files, " ".join(words)),
            param="questions",
        )
    for name in inputs:
        _check_input(name)
    if _is_input(question):
        raise InvalidRequest(
            f"got the {'URL' if '://' in question else 'file'} {question!r} in the place of the "
            "question, expected: INPUT... QUESTION, or INPUT... --question TEXT",
            param="questions",
        )
    return inputs, [question]


def _is_input(name: str) -> bool:
    """Returns True for a URL, and for a path that is there; an absolute one may be on the workers alone."""
    return not name or "://" in name or name.startswith("/") or Path(name).exists()


def _looks_like_file(name: str) -> bool:
    return " " not in name and ("/" in name or bool(re.search(r"\w\.[A-Za-z0-9]{2,5}$", name)))


def _check_input(name: str) -> None:
    if not _is_input(name):
        raise InvalidRequest(
            f"there is no file {name!r} in {Path.cwd()}, expected a path, or an s3://, http(s):// or "
            "file:// URL",
            param="inputs",
        )


def _write_command(names: Sequence[str], files: Sequence[str], question: str) -> str:
    """Returns this command with the question in quotes, and with its options."""
    command, *options = sys.argv[1:] or ["ask"]
    for name in names:
        if name in options:
            options.remove(name)
    return shlex.join(["videoqa", command, *files, question, *options])
