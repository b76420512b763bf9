"""Logits processors: what the checkpoint's settings and the request make of the logits, as in `generate`.

Each sequence has processors of its own, over its own tokens: so they are the same alone and in any batch. A
sequence for which nothing is set has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitNormalization,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from videoqa.contract import Generation
from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.generation_config import CheckpointGeneration

__all__ = ["ProcessorFactory"]


@dataclass(frozen=True)
class _Place:
    """The sequence that a processor is made for."""

    prompt: Any
    """Tokens of the prompt, int64[L]."""
    prompt_length: int
    """Tokens before the answer in what processors are given."""
    max_new_tokens: int
    ends: list[int]
    vocabulary: int
    device: torch.device


_Make = Callable[[Any, _Place], LogitsProcessor | None]


def _make_decay(value: Any, place: _Place) -> LogitsProcessor | None:
    start, factor = value
    if not place.ends:
        return None
    return ExponentialDecayLengthPenalty(
        (int(_to_float(start)), _to_float(factor)), place.ends, place.prompt_length
    )


def _to_float(value: Any) -> float:
    """Returns a number as a float; raises ValueError for text, as transformers does, and for infinity."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"it has to be a number, but is {value!r}")
    return float(value)


_SHARED: Mapping[str, _Make] = {
    "sequence_bias": lambda value, _: SequenceBiasLogitsProcessor(value),
    "no_repeat_ngram_size": lambda value, _: NoRepeatNGramLogitsProcessor(value),
    "bad_words_ids": lambda value, at: NoBadWordsLogitsProcessor(value, at.ends or None),
    "forced_bos_token_id": lambda value, _: ForcedBOSTokenLogitsProcessor(value),
    "suppress_tokens": lambda value, at: SuppressTokensLogitsProcessor(value, str(at.device)),
    "watermarking_config": lambda value, at: value.construct_processor(at.vocabulary, at.device),
    "renormalize_logits": lambda _, __: LogitNormalization(),
}
"""Processors without a state, one for all sequences."""
_OWN: Mapping[str, _Make] = {
    "encoder_repetition_penalty": lambda value, at: EncoderRepetitionPenaltyLogitsProcessor(
        _to_float(value), at.prompt[None]
    ),
    "repetition_penalty": lambda value, _: (
        RepetitionPenaltyLogitsProcessor(_to_float(value)) if value != 1 else None
    ),
    "encoder_no_repeat_ngram_size": lambda value, at: EncoderNoRepeatNGramLogitsProcessor(
        value, at.prompt[None]
    ),
    "min_length": lambda value, at: (
        MinLengthLogitsProcessor(value, at.ends, str(at.device)) if at.ends else None
    ),
    "min_new_tokens": lambda value, at: (
        MinNewTokensLengthLogitsProcessor(at.prompt_length, value, at.ends, str(at.device))
        if at.ends
        else None
    ),
    "forced_eos_token_id": lambda value, at: ForcedEOSTokenLogitsProcessor(
        at.prompt_length + at.max_new_tokens, value, str(at.device)
    ),
    "exponential_decay_length_penalty": _make_decay,
    "begin_suppress_tokens": lambda value, at: SuppressTokensAtBeginLogitsProcessor(
        value, at.prompt_length, str(at.device)
    ),
}
"""Processors that depend on the prompt or the limit of a sequence."""
_ORDER = (
    "sequence_bias", "encoder_repetition_penalty", "repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "min_length", "min_new_tokens", "forced_bos_token_id",
    "forced_eos_token_id", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    "watermarking_config", "renormalize_logits",
)  # fmt: skip
"""The order in which transformers applies them."""


class _AnswerPenalties(LogitsProcessor):
    """The frequency and presence penalties of OpenAI and vLLM, over the tokens of the answer."""

    def __init__(self, generation: Generation, prompt_length: int) -> None:
        self._frequency, self._presence = generation.frequency_penalty, generation.presence_penalty
        self._prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        written = input_ids[:, self._prompt_length :]
        counts = torch.zeros_like(scores).scatter_add_(
            1, written, torch.ones_like(written, dtype=scores.dtype)
        )
        return scores - self._frequency * counts - self._presence * (counts > 0)


class ProcessorFactory:
    """Makes the processors of each sequence of a model."""

    def __init__(self, checkpoint: CheckpointGeneration, device: torch.device) -> None:
        """
        Raises:
            ConfigurationError: a value of the checkpoint is none that transformers takes.
        """
        self._shaping = dict(checkpoint.shaping)
        if "min_new_tokens" in self._shaping:
            self._shaping.pop("min_length", None)
        nothing = torch.zeros(0, dtype=torch.long, device=device)
        self._place = _Place(nothing, 0, 1, checkpoint.ends, checkpoint.vocabulary or 0, device)
        self._shared = {
            name: _translate(name, value, self._place, _SHARED[name])
            for name, value in self._shaping.items()
            if name in _SHARED
        }
        self._check()

    def _check(self) -> None:
        """Makes and calls each processor once: a wrong value shows now, and with its name."""
        tokens = torch.zeros(1, 2, dtype=torch.long, device=self._place.device)
        place = replace(self._place, prompt=tokens[0], prompt_length=2)
        logits = torch.zeros(1, max(1, place.vocabulary), device=place.device)
        for name, value in self._shaping.items():

            def call(value: Any, place: _Place, name: str = name) -> LogitsProcessor | None:
                made = self._shared.get(name) or _OWN[name](value, place)
                if made is not None and place.vocabulary:
                    made(tokens, logits)
                return made

            _translate(name, value, place, call)

    def make(
        self, generation: Generation, prompt: torch.Tensor, prompt_length: int
    ) -> LogitsProcessorList:
        """Returns the processors of a sequence, in order; most have none.

        Arguments:
            prompt: int64[L].
            prompt_length: tokens before the answer in what the processors are given: of an encoder-decoder
                model not those of the prompt.
        """
        found = LogitsProcessorList()
        values = self._shaping
        if generation.repetition_penalty is not None:
            values = {**values, "repetition_penalty": generation.repetition_penalty}
        penalized = generation.frequency_penalty != 0 or generation.presence_penalty != 0
        if not values and not penalized:
            return found
        place = replace(
            self._place,
            prompt=prompt.to(self._place.device),
            prompt_length=prompt_length,
            max_new_tokens=generation.max_new_tokens,
        )
        for name in _ORDER:
            if name in values:
                made = self._shared.get(name) or _OWN[name](values[name], place)
                if made is not None:
                    found.append(made)
            if name == "repetition_penalty" and penalized:
                found.append(_AnswerPenalties(generation, prompt_length))
        return found


def _translate(name: str, value: Any, place: _Place, make: _Make) -> LogitsProcessor | None:
    try:
        return make(value, place)
    except Exception as error:  # transformers raises whatever a wrong type leads to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(
            f"got {name}={value!r:.200} in the checkpoint's generation settings, which transformers refuses: "
            f"{reason:.300}; correct it in a copy of the checkpoint",
            param="model",
        ) from error
