"""Per-sequence sampling and stopping inside transformers' `generate`.

`generate` decodes greedily for the whole batch. A sequence that samples draws its token here, with its
own generator, and leaves that token as the only possible one; a finished sequence is reported
as done, while the others go on. Knows nothing of how batches are formed.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from videoqa.errors import ModelError
from videoqa_worker.engine.failures import NAN_LOGITS
from videoqa_worker.engine.sequence.sampler import Sampler
from videoqa_worker.engine.sequence.sequence import Sequence

__all__ = ["HFSampler", "HFStopping"]


class HFSampler(LogitsProcessor):
    """Leaves a sampling sequence only the token drawn for it; fails a sequence with NaN or infinite logits."""

    def __init__(
        self,
        sequences: abc.Sequence[Sequence],
        device: torch.device,
        after: Callable[[Sequence], None],
    ) -> None:
        """
        Arguments:
            after: called with each sequence that failed.
        """
        self._sequences = sequences
        self._after = after
        self._samplers = {
            n: Sampler(one.generation, one.pending.seed, device)
            for n, one in enumerate(sequences)
            if one.generation.temperature > 0
        }

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns the logits, float32[sequences, vocabulary]; other processors forbid tokens by minus infinity."""
        finite = (scores < torch.inf).all(dim=-1).tolist()
        for sequence, is_finite in zip(self._sequences, finite, strict=True):
            if not is_finite and not sequence.is_finished:
                sequence.error = ModelError(NAN_LOGITS)
                self._after(sequence)
        for n, sampler in self._samplers.items():
            if not self._sequences[n].is_finished:
                token = sampler.draw(scores[n])
                scores[n] = -torch.inf
                scores[n, token] = 0.0
        return scores


class HFStopping(StoppingCriteria):
    """Gives each sequence its new token and reports which ones are finished."""

    def __init__(
        self, sequences: abc.Sequence[Sequence], after: Callable[[Sequence], None]
    ) -> None:
        """
        Arguments:
            after: called with each sequence that got a token.
        """
        self._sequences = sequences
        self._after = after

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Returns bool[sequences]: True where a sequence is finished."""
        for sequence, token in zip(self._sequences, input_ids[:, -1].tolist(), strict=True):
            if not sequence.is_finished:
                sequence.append_token(token)
                self._after(sequence)
        return torch.tensor([one.is_finished for one in self._sequences], device=input_ids.device)
