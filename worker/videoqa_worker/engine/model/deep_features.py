"""Features that the model also adds to the output of its first text layers (DeepStack, Qwen3-VL).

They lie side by side in a placeholder's feature: first the part for the embedding, then one for each layer. The model
puts them in by itself, so a prompt is given as token ids, with the features of the placeholders among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Self

import torch

from videoqa_worker.engine.model import vision
from videoqa_worker.prompt import ModelInputs

__all__ = ["DeepFeatures"]


class DeepFeatures:
    """The features of a prompt whose model takes them at several layers."""

    def __init__(
        self, features: vision.FlatFeatures, places: Mapping[str, torch.Tensor], width: int
    ) -> None:
        """
        Arguments:
            places: bool[L] by kind, on the CPU: the placeholders.
            width: numbers of an embedding.
        """
        self._parts = {
            kind: found.chunk(found.shape[-1] // width, dim=-1) for kind, found in features.items()
        }
        self._places = places

    @classmethod
    def find(cls, model: Any, inputs: ModelInputs, features: vision.FlatFeatures) -> Self | None:
        """Returns None if the model takes features as embeddings only."""
        width: int = model.get_input_embeddings().weight.shape[1]
        if all(found.shape[-1] == width for found in features.values()):
            return None
        return cls(features, vision.find_places(model, inputs), width)

    def slice(self, start: int, end: int) -> dict[str, Any]:
        """Returns the model's arguments for these positions of the prompt."""
        found = {}
        for kind, (embeddings, *deeper) in self._parts.items():
            places = self._places[kind]
            first, behind = int(places[:start].sum()), int(places[:end].sum())
            if behind > first:
                found[kind] = SimpleNamespace(
                    pooler_output=[embeddings[first:behind]],
                    deepstack_features=[[part[first:behind]] for part in deeper],
                )
        return {"mm_encoder_outputs": found} if found else {}
