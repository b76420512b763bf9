"""Rotary positions of a prompt, which may have several axes (time, height and width of a picture).

The model is asked once for each prompt, by its own `get_rope_index`: nothing of its arithmetic is repeated here.
Behind the prompt all axes count on together from its last token, as `generate` does. (The offset that
`get_rope_index` returns counts from the largest position instead, which is another one where frames of a video are
far apart in time.) Models without such positions count from 0, on one axis.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from videoqa_worker.prompt import ModelInputs

__all__ = ["RotaryPositions", "find_positions", "shape_position_ids"]


@dataclass(frozen=True, eq=False)
class RotaryPositions:
    """Rotary positions of a prompt and of its answer."""

    prompt: torch.Tensor
    """int64[axes, L] on the CPU."""
    delta: int = 0
    """The token at index n of prompt and answer has the position n + delta, if it is of the answer."""


def find_positions(model: Any, inputs: ModelInputs) -> RotaryPositions:
    """Returns the positions of a prompt, as the model's own forward pass finds them."""
    find = getattr(model.base_model, "get_rope_index", None)
    if find is None or not inputs.frames:
        return RotaryPositions(torch.arange(inputs.length)[None])
    known = {"input_ids": inputs.input_ids, **inputs.images}
    accepted = inspect.signature(find).parameters
    positions, _ = find(**{name: known[name] for name in accepted if name in known})
    return RotaryPositions(positions[:, 0], int(positions[0, 0, -1]) + 1 - inputs.length)


def shape_position_ids(positions: torch.Tensor) -> torch.Tensor:
    """Returns positions, int64[axes, n], as models take those of one sequence: [1, n], or [axes, 1, n]."""
    return positions if len(positions) == 1 else positions[:, None]
