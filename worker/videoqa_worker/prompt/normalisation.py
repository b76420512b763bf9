"""Normalises pixels on the model's device: uint8 to floats, the last step before the model.

Pictures travel as uint8 and become floats where the model is: a quarter of the bytes to move,
and the arithmetic is the device's. Knows nothing of checkpoints, processors or models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Normalisation"]

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """Computes `(pixels / divisor - mean) / std` for each channel, in float32."""

    divisor: float
    """255 brings pixels to 0..1. It divides, because `pixels * float32(1 / 255)` is rounded
    differently for 126 of 256 values than what processors compute in float64."""
    mean: Channels
    std: Channels

    def __call__(
        self, pixels: torch.Tensor, device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """Returns `dtype[..., 3, H, W]` on the device for pixels of uint8[..., 3, H, W], RGB."""
        constants = torch.tensor([(self.divisor,) * 3, self.mean, self.std], dtype=torch.float32)
        divisor, mean, std = constants.to(device)[..., None, None]
        values = pixels.to(device, non_blocking=True).to(torch.float32)
        return values.div_(divisor).sub_(mean).div_(std).to(dtype)
