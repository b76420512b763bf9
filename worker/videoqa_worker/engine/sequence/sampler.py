"""Draws the next token of a sequence with a generator of its own."""

from __future__ import annotations

import math

import torch

from videoqa.contract import Generation

__all__ = ["Sampler"]

MAX_LOGIT = 1e4
"""No model produces larger logits."""
MIN_TEMPERATURE = 1e-6
"""logits / temperature stays finite; a lower temperature gives the same token anyway."""


class Sampler:
    """Temperature, then min-p, top-k and nucleus (top-p) in the order of vLLM, then one draw.

    The generator belongs to the sequence: a seed gives the same answer alone and in any batch,
    on one kind of device (CPU and CUDA generators differ).
    """

    def __init__(self, generation: Generation, seed: int, device: torch.device) -> None:
        """
        Arguments:
            seed: the generation's own, or one drawn for it.
        """
        self._temperature = max(generation.temperature, MIN_TEMPERATURE)
        self._top_p, self._top_k, self._min_p = generation.top_p, generation.top_k, generation.min_p
        self._generator = torch.Generator(device).manual_seed(seed)
        self._before = self._generator.get_state()
        self.draws = 0

    def draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns a token, int64[] on the device, drawn from float32[vocabulary] logits."""
        self._before = self._generator.get_state()
        self.draws += 1
        # NaN (float16 overflows) would end in a device-side assertion, which takes the whole CUDA
        # context with it.
        finite = logits.float().nan_to_num(nan=-MAX_LOGIT).clamp(-MAX_LOGIT, MAX_LOGIT)
        probabilities = torch.softmax(self._filter(finite / self._temperature), dim=-1)
        if self._top_p >= 1:
            return torch.multinomial(probabilities, 1, generator=self._generator)[0]
        ordered, tokens = probabilities.sort(descending=True, stable=True)
        # The first token that reaches top_p still belongs to the nucleus.
        ordered[ordered.cumsum(dim=-1) - ordered >= self._top_p] = 0.0
        drawn = torch.multinomial(ordered, 1, generator=self._generator)
        return tokens.gather(0, drawn)[0]  # `tokens[drawn[0]]` would wait for the device

    def _filter(self, logits: torch.Tensor) -> torch.Tensor:
        """Forbids tokens below min-p, and those behind the top k; tokens that tie with the last one stay."""
        if self._min_p > 0:
            least = logits.amax() + math.log(self._min_p)
            logits = logits.masked_fill(logits < least, -torch.inf)
        if 0 < self._top_k < len(logits):
            logits = logits.masked_fill(logits < logits.topk(self._top_k).values[-1], -torch.inf)
        return logits

    def undo(self) -> None:
        """Takes back the last draw, whose token was lost."""
        self._generator.set_state(self._before)
        self.draws -= 1
