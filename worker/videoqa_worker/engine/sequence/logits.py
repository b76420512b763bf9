"""Logits processors: the checkpoint's own generation settings that shape every answer, as in `generate`."""

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

__all__ = ["LogitsProcessors", "make_processors"]


def make_processors(
    settings: Any, eos: frozenset[int], device: torch.device
) -> LogitsProcessorList:
    """Returns the processors in the order in which transformers applies them; most checkpoints have none."""
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


class LogitsProcessors:
    """The processors of one sequence, which depend on all of its tokens."""

    def __init__(self, processors: LogitsProcessorList, prompt: torch.Tensor, longest: int) -> None:
        """
        Arguments:
            prompt: int64[L].
            longest: tokens that prompt and answer can have.
        """
        self._processors = processors
        self._tokens = prompt.new_empty(1, longest)
        self._tokens[0, : len(prompt)] = prompt
        self._count = len(prompt)

    def add(self, token: int) -> None:
        """Adds a token of the answer."""
        self._tokens[0, self._count] = token
        self._count += 1

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the processed logits, float32[1, vocabulary] as given."""
        processed: torch.Tensor = self._processors(self._tokens[:, : self._count], logits)  # type: ignore[arg-type]
        return processed
