"""Turns generation settings, of a request and of its checkpoint, into vLLM's sampling parameters.

Stop strings are not among them: text and stop strings are found as in our own engine, in `sequence`. Nor are
structured outputs yet; they are to come in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videoqa.contract import Generation
from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.generation_config import CheckpointGeneration

__all__ = ["build_sampling", "check_checkpoint"]

_HONOURED = ("repetition_penalty", "min_new_tokens", "renormalize_logits")
"""Settings of a checkpoint that vLLM follows; the last one changes no answer here."""


def check_checkpoint(generation: CheckpointGeneration, name: str) -> None:
    """Refuses settings of a checkpoint that change answers and that vLLM lacks.

    Raises:
        ConfigurationError: names all of them.
    """
    lacking = [field for field in generation.shaping if field not in _HONOURED]
    if lacking:
        raise ConfigurationError(
            f"got {', '.join(lacking)} in the generation settings of {name}, expected none: vLLM does not follow them, "
            "and the answers would be others; set VIDEOQA_ENGINE=transformers, or take them out of a copy of the "
            "checkpoint",
            param="model",
        )


def build_sampling(
    generation: Generation, checkpoint: CheckpointGeneration, seed: int
) -> Mapping[str, Any]:
    """Returns the parameters by vLLM's names.

    Arguments:
        seed: of the draws, if there is a temperature.
    """
    penalty = generation.repetition_penalty
    if penalty is None:
        penalty = float(checkpoint.shaping.get("repetition_penalty", 1.0))
    least = int(checkpoint.shaping.get("min_new_tokens", 0))
    found: dict[str, Any] = {
        "max_tokens": generation.max_new_tokens,
        "min_tokens": min(least, generation.max_new_tokens),
        "temperature": generation.temperature,
        "repetition_penalty": penalty,
        "frequency_penalty": generation.frequency_penalty,
        "presence_penalty": generation.presence_penalty,
        # The end tokens are the checkpoint's, which need not be the tokenizer's.
        "ignore_eos": True,
        "stop_token_ids": checkpoint.ends,
        "detokenize": False,
    }
    if generation.temperature > 0:
        found |= {
            "top_p": generation.top_p,
            "top_k": generation.top_k,
            "min_p": generation.min_p,
            "seed": seed,
        }
    return found
