"""Per-sequence settings, sampling and stopping inside transformers' `generate`.

`generate` decodes greedily for the whole batch, without settings of its own. Here the logits of each sequence
are processed over its own tokens, without padding; one that samples draws its token with its
own generator, and leaves that token as the only possible one; a finished sequence is reported
as done, while the others go on. Knows nothing of how batches are formed.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria

from videoqa.errors import GenerationError
from videoqa_worker.engine.failures import make_nan_error, make_no_token_error
from videoqa_worker.engine.model.logits_processors import ProcessorFactory
from videoqa_worker.engine.sequence.sampler import Sampler
from videoqa_worker.engine.sequence.sequence import Sequence
from videoqa_worker.engine.structured.masks import TokenMasks

__all__ = ["HFSampler", "HFStopping"]


class HFSampler(LogitsProcessor):
    """Processes logits, and leaves a sampling sequence only the token drawn for it.

    Fails a sequence with NaN or infinite logits, or without a token that may be written.
    """

    def __init__(
        self,
        sequences: abc.Sequence[Sequence],
        factory: ProcessorFactory,
        device: torch.device,
        after: Callable[[Sequence], None],
        masks: TokenMasks,
    ) -> None:
        """
        Arguments:
            after: called with each sequence that failed.
            masks: of answers that have a form.
        """
        self._sequences = sequences
        self._factory = factory
        self._processors: list[LogitsProcessorList] | None = None
        self._padding: list[int] = []
        self._after = after
        self._masks = masks
        self._samplers = {
            n: Sampler(one.generation, one.pending.seed, device)
            for n, one in enumerate(sequences)
            if one.generation.temperature > 0
        }

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns the logits, float32[sequences, vocabulary]; a model may forbid tokens by minus infinity."""
        self._fail((scores < torch.inf).all(dim=-1), lambda _: make_nan_error())
        for n, processors in enumerate(self._processors or self._make_processors(input_ids)):
            if processors and not self._sequences[n].is_finished:
                tokens: Any = input_ids[n : n + 1, self._padding[n] :]
                scores[n] = processors(tokens, scores[n : n + 1])[0]
        self._apply_masks(scores)
        self._fail(
            scores.amax(dim=-1) > -torch.inf,
            lambda one: make_no_token_error(is_free=one.matcher is None),
        )
        for n, sampler in self._samplers.items():
            if not self._sequences[n].is_finished:
                token = sampler.draw(scores[n])
                scores[n] = -torch.inf
                scores[n, token] = 0.0
        return scores

    def _apply_masks(self, scores: torch.Tensor) -> None:
        """Computes the masks here, while a GPU still works on the logits, which `generate` has asked for already."""
        matchers = [None if one.is_finished else one.matcher for one in self._sequences]
        self._masks.start([matcher for matcher in matchers if matcher is not None])
        self._masks.apply(scores, matchers)

    def _make_processors(self, input_ids: torch.Tensor) -> list[LogitsProcessorList]:
        """Makes the processors at the first token; only what `generate` gives then tells the length of its prompts."""
        width, made = input_ids.shape[1], []
        for sequence in self._sequences:
            inputs = sequence.pending.request.inputs
            padding = width - inputs.length if len(self._sequences) > 1 else 0
            made.append(
                self._factory.make(sequence.generation, inputs.input_ids[0], width - padding)
            )
            self._padding.append(padding)
        self._processors = made
        return made

    def _fail(
        self, are_good: torch.Tensor, make_error: Callable[[Sequence], GenerationError]
    ) -> None:
        for sequence, is_good in zip(self._sequences, are_good.tolist(), strict=True):
            if not is_good and not sequence.is_finished:
                sequence.error = make_error(sequence)
                self._after(sequence)


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
