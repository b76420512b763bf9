"""Tokenizes prompts in which a picture stands as hundreds of equal tokens.

Of the 34 ms that a prompt with 8 frames took, 18 went into tokenizing 5,832 placeholders, most of
them with Python's lock held, which the engine's thread waits for. Here a run of them is tokenized as one
and repeated afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

__all__ = ["collapse_runs"]

_SUPPORTED = {"add_special_tokens", "return_tensors", "padding"}
"""Settings under which the result for a token does not depend on the others."""


def collapse_runs(tokenizer: Any, placeholders: Iterable[str]) -> Any:
    """Returns a tokenizer with the same results that tokenizes each run of a placeholder as one.

    It is the given one if no placeholder is a token of its own however many stand side by side.
    """
    found = [token for token in placeholders if _is_repeatable(tokenizer, token)]
    return _CollapsingTokenizer(tokenizer, found) if found else tokenizer


def _is_repeatable(tokenizer: Any, token: str) -> bool:
    """Returns True if a token is itself whatever stands beside it.

    False for a word that the tokenizer may change, cut otherwise, or take only as a whole one.
    """
    number = tokenizer.convert_tokens_to_ids(token)
    try:
        added = tokenizer.added_tokens_decoder.get(number)
    except NotImplementedError:  # Mistral's own backend
        return False
    if added is None or added.single_word or added.normalized:
        return False
    return list(tokenizer(token * 3, add_special_tokens=False)["input_ids"]) == [number] * 3


class _CollapsingTokenizer:
    """Wraps a tokenizer; everything but the tokenizing of one prompt is left to it."""

    def __init__(self, tokenizer: Any, placeholders: list[str]) -> None:
        self._tokenizer = tokenizer
        ids = tokenizer.convert_tokens_to_ids(placeholders)
        self._placeholders: dict[str, int] = dict(zip(placeholders, ids, strict=True))
        self._runs = re.compile(rf"({'|'.join(map(re.escape, placeholders))})\1*")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any = None, *args: Any, **settings: Any) -> BatchEncoding:
        single = isinstance(text, list) and len(text) == 1 and isinstance(text[0], str)
        supported = not args and settings.keys() <= _SUPPORTED and not settings.get("padding")
        encoded = None
        if single and supported and settings.get("return_tensors") == "pt":
            encoded = self._encode_collapsed(text[0], settings)
        return self._tokenizer(text, *args, **settings) if encoded is None else encoded

    def _encode_collapsed(self, text: str, settings: dict[str, Any]) -> BatchEncoding | None:
        """Returns None without placeholders, or if the tokenizer takes one for something else."""
        counts: list[int] = []
        expected: list[int] = []

        def collapse(run: re.Match[str]) -> str:
            counts.append(len(run[0]) // len(run[1]))
            expected.append(self._placeholders[run[1]])
            return run[1]

        short = self._runs.sub(collapse, text)
        if not counts:
            return None
        encoded = self._tokenizer([short], **{**settings, "return_tensors": None})
        ids = np.array(encoded["input_ids"][0])
        is_placeholder = np.isin(ids, [*self._placeholders.values()])
        if ids[is_placeholder].tolist() != expected:
            return None
        repeats = np.ones(len(ids), np.int64)
        repeats[is_placeholder] = counts
        # By numpy: torch would take all cores, beside an engine that needs them.
        rows = {name: np.repeat(values[0], repeats)[None] for name, values in encoded.items()}
        return BatchEncoding({name: torch.from_numpy(row) for name, row in rows.items()})
