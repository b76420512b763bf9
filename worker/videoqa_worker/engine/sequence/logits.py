"""The logits processors of a sequence in a slot, with the tokens that they depend on."""

from __future__ import annotations

import torch
from transformers import LogitsProcessorList

__all__ = ["LogitsProcessors"]


class LogitsProcessors:
    """The processors of one sequence, and its tokens."""

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
