"""Draws one row's next token with a generator of its own."""

from __future__ import annotations

import torch

from videoqa.job import Generation

__all__ = ["Sampler"]


class Sampler:
    """Temperature, then nucleus (top-p), then one draw.

    The generator belongs to the row: a seed gives the same answer alone and in any batch,
    on one kind of device (CPU and CUDA generators differ).
    """

    def __init__(self, generation: Generation, device: torch.device) -> None:
        self._temperature = generation.temperature
        self._top_p = generation.top_p
        self._generator = torch.Generator(device)
        if generation.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(generation.seed)

    def draw(self, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: float32[vocabulary], before softmax; int64[] comes back, on the device."""
        chances = torch.softmax(scores.float() / self._temperature, dim=-1)
        if self._top_p >= 1:
            return torch.multinomial(chances, 1, generator=self._generator)[0]
        ordered, tokens = chances.sort(descending=True, stable=True)
        # The first token that reaches top_p still belongs to the nucleus.
        ordered[ordered.cumsum(dim=-1) - ordered >= self._top_p] = 0.0
        return tokens[torch.multinomial(ordered, 1, generator=self._generator)[0]]
