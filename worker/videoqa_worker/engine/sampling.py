"""Draws one row's next token with a generator of its own."""

from __future__ import annotations

import torch

from videoqa.job import Generation

__all__ = ["Sampler"]

LARGEST = 1e4
"""No model writes scores beyond it."""
COLDEST = 1e-6
"""Keeps scores / temperature finite; colder is the same token anyway."""


class Sampler:
    """Temperature, then nucleus (top-p), then one draw.

    The generator belongs to the row: a seed gives the same answer alone and in any batch,
    on one kind of device (CPU and CUDA generators differ).
    """

    def __init__(self, generation: Generation, device: torch.device) -> None:
        self._temperature = max(generation.temperature, COLDEST)
        self._top_p = generation.top_p
        self._generator = torch.Generator(device)
        if generation.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(generation.seed)

    def draw(self, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: float32[vocabulary], before softmax; int64[] comes back, on the device."""
        # Not-a-number (float16 overflows) would end in a device-side assertion, which takes the
        # whole CUDA context with it.
        sound = scores.float().nan_to_num(nan=-LARGEST).clamp(-LARGEST, LARGEST)
        chances = torch.softmax(sound / self._temperature, dim=-1)
        if self._top_p >= 1:
            return torch.multinomial(chances, 1, generator=self._generator)[0]
        ordered, tokens = chances.sort(descending=True, stable=True)
        # The first token that reaches top_p still belongs to the nucleus.
        ordered[ordered.cumsum(dim=-1) - ordered >= self._top_p] = 0.0
        return tokens[torch.multinomial(ordered, 1, generator=self._generator)[0]]
