"""What a checkpoint's own generation settings do to every answer, as in `generate`."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

__all__ = ["Shaping", "processors"]


def processors(settings: Any, eos: frozenset[int], device: torch.device) -> LogitsProcessorList:
    """In the order in which transformers applies them; empty for most checkpoints."""
    found = LogitsProcessorList()
    if (settings.repetition_penalty or 1.0) != 1.0:
        found.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.bad_words_ids:
        ends = sorted(eos) or None
        found.append(NoBadWordsLogitsProcessor(settings.bad_words_ids, eos_token_id=ends))
    if settings.suppress_tokens:
        found.append(SuppressTokensLogitsProcessor(settings.suppress_tokens, device=str(device)))
    return found


class Shaping:
    """Of one row, which they judge by all of its tokens."""

    def __init__(self, found: LogitsProcessorList, prompt: torch.Tensor, longest: int) -> None:
        """
        Arguments:
            prompt: int64[L].
            longest: tokens that prompt and answer can have.
        """
        self._processors = found
        self._tokens = prompt.new_empty(1, longest)
        self._tokens[0, : len(prompt)] = prompt
        self._count = len(prompt)

    def add(self, token: int) -> None:
        self._tokens[0, self._count] = token
        self._count += 1

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        """float32[1, vocabulary], and the same back."""
        shaped: torch.Tensor = self._processors(self._tokens[:, : self._count], scores)  # type: ignore[arg-type]
        return shaped
