"""Tokenizing prompts in which a picture stands as hundreds of equal tokens.

Of the 34 ms that a prompt with 8 frames took, 18 went into tokenizing 5,832 placeholders, most of
them with Python's lock held, which the engine's thread waits for. Here a run of them is tokenized as one
and written out after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

__all__ = ["collapse_runs"]

_KNOWN = {"add_special_tokens", "return_tensors", "padding"}
"""Settings with which each token's numbers are its own."""


def collapse_runs(tokenizer: Any, placeholders: Iterable[str]) -> None:
    """Has this tokenizer do so with those that are a token each, however many stand side by side."""
    found = [token for token in placeholders if _repeats(tokenizer, token)]
    if not found:
        return
    kind = type(tokenizer)
    tokenizer.__class__ = type(
        kind.__name__,
        (_Collapsing, kind),
        {
            "__module__": kind.__module__,
            "_placeholders": dict(zip(found, tokenizer.convert_tokens_to_ids(found), strict=True)),
            "_runs": re.compile(rf"({'|'.join(map(re.escape, found))})\1*"),
        },
    )


def _repeats(tokenizer: Any, token: str) -> bool:
    """Whether it is itself whatever stands beside it: no word that the tokenizer may change, cut otherwise, or
    takes as a whole one only."""
    number = tokenizer.convert_tokens_to_ids(token)
    try:
        added = tokenizer.added_tokens_decoder.get(number)
    except NotImplementedError:  # Mistral's own backend
        return False
    if added is None or added.single_word or added.normalized:
        return False
    return list(tokenizer(token * 3, add_special_tokens=False)["input_ids"]) == [number] * 3


class _Collapsing:
    """Mixed into the class of a tokenizer."""

    _placeholders: dict[str, int]
    _runs: re.Pattern[str]

    def __call__(self, text: Any = None, *args: Any, **settings: Any) -> BatchEncoding:
        one = isinstance(text, list) and len(text) == 1 and isinstance(text[0], str)
        known = not args and settings.keys() <= _KNOWN and not settings.get("padding")
        found = None
        if one and known and settings.get("return_tensors") == "pt":
            found = self._written_out(text[0], settings)
        if found is None:
            found = super().__call__(text, *args, **settings)  # type: ignore[misc]
        return found

    def _written_out(self, text: str, settings: dict[str, Any]) -> BatchEncoding | None:
        """None without placeholders, or where the tokenizer makes something else of one."""
        counts: list[int] = []
        expected: list[int] = []

        def once(run: re.Match[str]) -> str:
            counts.append(len(run[0]) // len(run[1]))
            expected.append(self._placeholders[run[1]])
            return run[1]

        short = self._runs.sub(once, text)
        if not counts:
            return None
        coded = super().__call__([short], **{**settings, "return_tensors": None})  # type: ignore[misc]
        ids = np.array(coded["input_ids"][0])
        placed = np.isin(ids, [*self._placeholders.values()])
        if ids[placed].tolist() != expected:
            return None
        repeats = np.ones(len(placed), np.int64)
        repeats[placed] = counts
        # By numpy: torch would take all cores, beside an engine that wants them.
        rows = {name: np.repeat(values[0], repeats)[None] for name, values in coded.items()}
        return BatchEncoding({name: torch.from_numpy(row) for name, row in rows.items()})
