"""Teaches the vision tower what lies where, before any question is asked.

Every patch of a frame learns the colour, shape and place of the object nearest to it. Without
this the model stays at chance for the first half hour; with it, colours and shapes are right
within minutes.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from batches import draw
from checkpoint import IMAGE_PX, PATCH_PX
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration
from videoqa_worker.demo.scenes import COLORS, SHAPES, Scene, sample_scene

_COLORS = list(COLORS)
_SIDE = IMAGE_PX // PATCH_PX
_SCENES, _FRAMES = 64, 4


class PatchHead(nn.Module):
    """Reads colour (0 is background), shape and centre from each patch; dropped afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1 + len(COLORS) + len(SHAPES) + 2)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        colors, shapes, centers = (
            self.linear(features).float().split([1 + len(COLORS), len(SHAPES), 2], dim=-1)
        )
        return colors, shapes, centers


def warmup_loss(
    model: LlavaForConditionalGeneration, head: PatchHead, rng: random.Random
) -> tuple[torch.Tensor, dict[str, float]]:
    """One step's loss; and shares of right colours and shapes, and the centres' mean error."""
    scenes = [sample_scene(rng) for _ in range(_SCENES)]
    times = sorted(rng.random() for _ in range(_FRAMES))
    pixels = torch.cat([draw(rng, scenes[at : at + 16], times) for at in range(0, _SCENES, 16)])
    color, shape, center = (torch.from_numpy(target) for target in patch_targets(scenes, times))
    with torch.autocast("cpu", torch.bfloat16):
        features = torch.stack(
            list(model.model.get_image_features(pixel_values=pixels).pooler_output)
        )
        said_color, said_shape, said_center = head(features)
    there = color > 0
    loss = (
        functional.cross_entropy(said_color.flatten(0, 1), color.flatten())
        + functional.cross_entropy(said_shape[there], shape[there])
        + 10 * functional.smooth_l1_loss(said_center[there], center[there], beta=0.05)
    )
    with torch.no_grad():
        read = {
            "color": (said_color[there].argmax(-1) == color[there]).float().mean().item(),
            "shape": (said_shape[there].argmax(-1) == shape[there]).float().mean().item(),
            "center": (said_center[there] - center[there]).abs().mean().item(),
        }
    return loss, read


def patch_targets(
    scenes: list[Scene], times: list[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each of P patches shows in F = scenes x times frames.

    Returns:
        int64[F, P] colour, 0 where there is nothing; int64[F, P] shape; float32[F, P, 2] centre.
    """
    frames = len(scenes) * len(times)
    color = np.zeros((frames, _SIDE, _SIDE), dtype=np.int64)
    shape = np.zeros_like(color)
    center = np.zeros((frames, _SIDE, _SIDE, 2), dtype=np.float32)
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
            color[index][mine] = 1 + _COLORS.index(thing.color)
            shape[index][mine] = SHAPES.index(thing.shape)
            center[index][mine] = (x, y)
    return color.reshape(frames, -1), shape.reshape(frames, -1), center.reshape(frames, -1, 2)
