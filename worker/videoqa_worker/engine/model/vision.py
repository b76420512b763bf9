"""Pixels of a row in, the features that stand for its placeholder tokens out.

Each row is encoded by itself, through the model's own `get_image_features` and
`get_video_features`, and the features go into `generate` as `mm_encoder_outputs`. So rows
of any frame counts and sizes share a batch without padded pixels, a row's features are
those it would have alone, bit for bit, and features can later be kept and used again.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from videoqa_worker.engine.device.cuda_graphs import Graphs
from videoqa_worker.prompt import ModelInputs

__all__ = ["Features", "Flat", "embedded", "encode", "flat", "join", "placed", "placeholders"]

_FRAMES = 8
"""Pictures a pass, where passes are graphs."""
Pooled = torch.Tensor | list[torch.Tensor]
Features = dict[str, list[Pooled]]
"""`image` and `video`: what the model's encoder returned, in the order of the placeholders."""
Flat = dict[str, torch.Tensor]
"""The same as [placeholders, d] each."""


def encode(model: Any, inputs: ModelInputs, graphs: Graphs | None = None) -> Features:
    """The features of one row, in the model's dtype, on its device."""
    found: Features = {}
    if graphs is not None and graphs.on and set(inputs.images) == {"pixel_values"}:
        frames = _pixels("image", inputs.images["pixel_values"], inputs, model)
        if frames.ndim == 4 and model.config.model_type == "llava":
            return {"image": [_by_eights(model, frames, graphs)]}
    if "pixel_values" in inputs.images:
        encoder = model.base_model.get_image_features
        accepted = inspect.signature(encoder).parameters
        pixels = {
            name: placed(value, model) for name, value in inputs.images.items() if name in accepted
        }
        pixels["pixel_values"] = _pixels("image", inputs.images["pixel_values"], inputs, model)
        found["image"] = [encoder(**pixels, return_dict=True).pooler_output]
    if inputs.videos:
        found["video"] = [
            model.base_model.get_video_features(
                pixel_values_videos=_pixels("video", video, inputs, model), return_dict=True
            ).pooler_output
            for video in inputs.videos
        ]
    return found


def _by_eights(model: Any, pixels: torch.Tensor, graphs: Graphs) -> torch.Tensor:
    """[frames, tokens, d], by passes over so many frames: a picture's features are its own."""
    found = []
    for few in torch.split(pixels, _FRAMES):
        filled = torch.cat([few, few.new_zeros(_FRAMES - len(few), *few.shape[1:])])
        whole = graphs.run(("frames", *filled.shape), lambda p: _stacked(model, p), filled)
        found.append(whole[: len(few)].clone())
    return torch.cat(found)


def _stacked(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    pooled = model.base_model.get_image_features(
        pixel_values=pixels, return_dict=True
    ).pooler_output
    return pooled if isinstance(pooled, torch.Tensor) else torch.stack(list(pooled))


def join(rows: Sequence[Features]) -> dict[str, Any]:
    """The features of all rows as one `mm_encoder_outputs`."""
    joined: dict[str, Any] = {}
    for kind in ("image", "video"):
        pooled = [part for row in rows for part in row.get(kind, ())]
        if pooled:
            joined[kind] = BaseModelOutputWithPooling(pooler_output=_joined(pooled))  # type: ignore[arg-type]
    return joined


def flat(features: Features) -> Flat:
    """One feature a placeholder."""
    return {kind: torch.cat([_rows(part) for part in pooled]) for kind, pooled in features.items()}


def _rows(pooled: Pooled) -> torch.Tensor:
    if isinstance(pooled, torch.Tensor):
        return pooled.reshape(-1, pooled.shape[-1])
    return torch.cat([_rows(picture) for picture in pooled])


def placeholders(model: Any, inputs: ModelInputs) -> torch.Tensor:
    """bool[L], on the CPU: which tokens stand for pictures."""
    ids = inputs.input_ids[0]
    return torch.isin(ids, torch.tensor([token for _, token in _tokens(model)]))


def _tokens(model: Any) -> list[tuple[str, int]]:
    found = []
    for kind in ("image", "video"):
        for name in (f"{kind}_token_id", f"{kind}_token_index"):
            token = getattr(model.config, name, None)
            if token is not None:
                found.append((kind, int(token)))
                break
    return found


def embedded(model: Any, inputs: ModelInputs, features: Flat) -> torch.Tensor:
    """[1, L, d]: the tokens' embeddings, the pictures' features in their places."""
    # On the CPU, where the tokens are: to ask the device would be to wait for all that it has to do, and so
    # would be a copy to it that blocks.
    ids = inputs.input_ids[0].clone()
    places = {kind: (ids == token).nonzero()[:, 0] for kind, token in _tokens(model)}
    for at in places.values():
        ids[at] = 0  # a placeholder may be a token that the embedding does not know
    ids = ids.to(model.device, non_blocking=True)
    whole: torch.Tensor = model.get_input_embeddings()(ids[None])
    for kind, found in features.items():
        at = places[kind]
        if len(at) != len(found):
            raise ValueError(
                f"{len(at)} placeholders in the prompt for {len(found)} {kind} features"
            )
        at = at.to(whole.device, non_blocking=True)
        whole[0].index_copy_(0, at, found.to(whole.device, whole.dtype))
    return whole


def _joined(pooled: list[Pooled]) -> Pooled:
    """Families return a list with one tensor a picture, or one tensor [pictures, tokens, d].

    Those of the second kind flatten it to [tokens, d]; joined as [1, tokens, d] it may hold
    pictures and videos of different lengths.
    """
    tensors = [part for part in pooled if isinstance(part, torch.Tensor)]
    if len(tensors) == len(pooled):
        return torch.cat([part.flatten(0, 1) for part in tensors])[None]
    return [picture for part in pooled for picture in part]


def _pixels(kind: str, value: torch.Tensor, inputs: ModelInputs, model: Any) -> torch.Tensor:
    if kind in inputs.normalisations:
        return inputs.normalisations[kind](value, model.device, model.dtype)
    return placed(value, model)


def placed(value: torch.Tensor, model: Any) -> torch.Tensor:
    """On the model's device; pixels in its dtype."""
    dtype = model.dtype if value.is_floating_point() else None
    return value.to(model.device, dtype, non_blocking=True)
