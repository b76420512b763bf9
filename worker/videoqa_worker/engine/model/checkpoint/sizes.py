"""Bounds the numbers of a checkpoint's files that memory and time grow with before its weights are compared.

A model is built without memory for its weights, but each layer is an object: a configuration of a million layers
took minutes and gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videoqa.errors import ConfigurationError

__all__ = ["LIMITS", "check_sizes"]

LIMITS = (
    (re.compile(r"(num|n)_(\w+_)?layers?|depth|(en|de)coder_layers"), 1_000),
    (re.compile(r"(num|n)_(\w+_)?experts"), 10_000),
    (re.compile(r"image_seq_len(gth)?|num_image_tokens|mm_tokens_per_image"), 100_000),
    (re.compile(r"vocab_size"), 1 << 24),
)
"""Fields by name, and the largest value of each; known models have at most a tenth of it."""


def check_sizes(path: Path, stated: dict[str, Any]) -> None:
    """Checks the numbers in a JSON object, however deep they lie.

    Raises:
        ConfigurationError: one is larger than any model's.
    """
    for name, value in _list_numbers(stated):
        for pattern, most in LIMITS:
            if value > most and pattern.fullmatch(name):
                raise ConfigurationError(
                    f"got {name}={str(value)[:20]} in {path}, expected at most {most}: the file is damaged; "
                    "download it again",
                    param="model",
                )


def _list_numbers(stated: dict[str, Any]) -> Iterator[tuple[str, int | float]]:
    """Yields the numbers of an object and of those within it, with their names; a list's have the list's."""
    waiting: list[tuple[str, Any]] = [("", stated)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend((name, each) for each in value if isinstance(each, dict))
        elif isinstance(value, int | float):
            yield name, value
