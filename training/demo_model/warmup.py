"""Warm-up of the vision tower: it learns the content of each patch, before any question is asked.

Every patch of a frame learns the colour, shape and place of the object nearest to it. After it
the language model gets colours and shapes right within a minute; where places were learnt as two
numbers instead of classes, directions were still at chance after fifteen.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from batches import draw
from checkpoint import IMAGE_PX, PATCH_PX
from demo_world import COLORS, SHAPES, Scene, sample_scene
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

_COLORS = list(COLORS)
_SIDE = IMAGE_PX // PATCH_PX
_SCENES, _FRAMES = 64, 4
#: Rows, and columns, of places.
_PLACES = 12
_TRAITS = ("color", "shape", "column", "row")


class PatchHead(nn.Module):
    """Reads colour (0 is background), shape and place from each patch; dropped afterwards.

    The place is read as classes, a row and a column: learnt as two numbers it stays so faint among
    the features that the language model does not find it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._sizes = [1 + len(COLORS), len(SHAPES), _PLACES, _PLACES]
        self.linear = nn.Linear(width, sum(self._sizes))

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Logits of colour, shape, column and row, each float32[F, P, classes]."""
        return list(self.linear(features).float().split(self._sizes, dim=-1))


def warmup_loss(
    model: LlavaForConditionalGeneration, head: PatchHead, rng: random.Random
) -> tuple[torch.Tensor, dict[str, float]]:
    """Returns one step's loss, and the shares of patches whose object is read right."""
    scenes = [sample_scene(rng) for _ in range(_SCENES)]
    times = sorted(rng.random() for _ in range(_FRAMES))
    pixels = torch.cat([draw(rng, scenes[at : at + 16], times) for at in range(0, _SCENES, 16)])
    targets = [torch.from_numpy(target) for target in patch_targets(scenes, times)]
    with torch.autocast("cpu", torch.bfloat16):
        features = model.model.get_image_features(pixel_values=pixels).pooler_output
        logits = head(torch.stack(list(features)))
    there = targets[0] > 0
    loss = functional.cross_entropy(logits[0].flatten(0, 1), targets[0].flatten())
    read = {}
    for name, said, wanted in zip(_TRAITS, logits, targets, strict=True):
        loss = loss + functional.cross_entropy(said[there], wanted[there])
        read[name] = (said[there].argmax(-1) == wanted[there]).float().mean().item()
    return loss, read


def patch_targets(scenes: list[Scene], times: list[float]) -> list[np.ndarray]:
    """Returns the content of each of P patches in F = scenes x times frames.

    Returns:
        Colour (0 where there is nothing), shape, column and row of the centre, each int64[F, P].
    """
    frames = len(scenes) * len(times)
    targets = np.zeros((4, frames, _SIDE, _SIDE), dtype=np.int64)
    nearest = np.full((frames, _SIDE, _SIDE), np.inf)
    middles = (np.arange(_SIDE) + 0.5) / _SIDE
    for index in range(frames):
        u = times[index % len(times)]
        for thing in scenes[index // len(times)].objects:
            if not thing.appears <= u < thing.vanishes:
                continue
            x, y = thing.position(u)
            away = np.maximum(np.abs(middles[None, :] - x), np.abs(middles[:, None] - y))
            mine = (away < 0.5 / _SIDE + 0.5 * thing.radius) & (away < nearest[index])
            nearest[index][mine] = away[mine]
            traits = (
                1 + _COLORS.index(thing.color),
                SHAPES.index(thing.shape),
                int(x * _PLACES),
                int(y * _PLACES),
            )
            targets[:, index, mine] = np.array(traits)[:, None]
    return list(targets.reshape(4, frames, -1))
