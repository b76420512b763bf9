"""Encodes the pixels of a prompt to the features that stand for its placeholder tokens.

Each prompt is encoded alone, by the model's own `get_image_features` and
`get_video_features`, and the features go into `generate` as `mm_encoder_outputs`. So prompts
of any frame counts and sizes share a batch without padded pixels, the features are bitwise
those that a prompt would have alone, and they can be cached.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.prompt import ModelInputs

__all__ = [
    "Features",
    "FlatFeatures",
    "embed",
    "encode",
    "find_placeholders",
    "find_places",
    "flatten_features",
    "has_placeholders",
    "join_features",
    "load_images",
    "send",
]

_FRAMES = 8
"""Pictures in a pass, where passes are graphs."""
Pooled = torch.Tensor | list[torch.Tensor]
Features = dict[str, list[Pooled]]
"""Output of the model's encoder by kind, `image` and `video`, in the order of the placeholders."""
FlatFeatures = dict[str, torch.Tensor]
"""Features by kind, [placeholders, d] each."""


def encode(model: Any, inputs: ModelInputs, graphs: CudaGraphs | None = None) -> Features:
    """Returns the features of one prompt, in the model's dtype, on its device."""
    found: Features = {}
    if graphs is not None and graphs.enabled and set(inputs.images) == {"pixel_values"}:
        frames = _load_pixels("image", inputs.images["pixel_values"], inputs, model)
        if frames.ndim == 4 and model.config.model_type == "llava":
            return {"image": [_encode_frames(model, frames, graphs)]}
    if "pixel_values" in inputs.images:
        found["image"] = [_encode_kind("image", model, load_images(model, inputs))]
    if "pixel_values_videos" in inputs.images:
        found["video"] = [_encode_videos(model, load_images(model, inputs))]
    if inputs.videos:
        found["video"] = [
            model.base_model.get_video_features(
                pixel_values_videos=_load_pixels("video", video, inputs, model), return_dict=True
            ).pooler_output
            for video in inputs.videos
        ]
    return found


def _encode_videos(model: Any, loaded: dict[str, torch.Tensor]) -> Pooled:
    """Returns the features of videos that their processor wrote as one tensor."""
    if not hasattr(model.base_model, "get_video_features"):  # PerceptionLM
        return _encode_kind("image", model, {"pixel_values": loaded["pixel_values_videos"]})
    pooled = _encode_kind("video", model, loaded)
    mask = loaded.get("video_compression_mask")  # VideoLLaMA3 leaves out what does not change
    return pooled if mask is None else _flatten(pooled)[mask]


def _encode_kind(kind: str, model: Any, loaded: dict[str, torch.Tensor]) -> Pooled:
    """Returns the features that the encoder of a kind makes of those of the processor's outputs that it takes."""
    encoder = getattr(model.base_model, f"get_{kind}_features")
    accepted = inspect.signature(encoder).parameters
    given = {name: value for name, value in loaded.items() if name in accepted}
    return _pool(encoder(**given, return_dict=True))


def _pool(output: Any) -> Pooled:
    """Returns an encoder's features; those for deeper layers of the text model stand behind them."""
    pooled: Pooled = output.pooler_output
    deeper = getattr(output, "deepstack_features", None)
    if not deeper:
        return pooled
    return [torch.cat(parts, dim=-1) for parts in zip(pooled, *deeper, strict=True)]


def load_images(model: Any, inputs: ModelInputs) -> dict[str, torch.Tensor]:
    """Returns the processor's output for images on the model's device, with pixels as the model takes them."""
    return {
        name: _load_pixels("image", value, inputs, model)
        if name == "pixel_values"
        else send(value, model)
        for name, value in inputs.images.items()
    }


def _encode_frames(model: Any, pixels: torch.Tensor, graphs: CudaGraphs) -> torch.Tensor:
    """Returns [frames, tokens, d] by passes over eight frames: no frame's features depend on another."""
    found = []
    for few in torch.split(pixels, _FRAMES):
        filled = torch.cat([few, few.new_zeros(_FRAMES - len(few), *few.shape[1:])])
        whole = graphs.run(("frames", *filled.shape), lambda p: _encode_batch(model, p), filled)
        found.append(whole[: len(few)].clone())
    return torch.cat(found)


def _encode_batch(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    pooled = model.base_model.get_image_features(
        pixel_values=pixels, return_dict=True
    ).pooler_output
    return pooled if isinstance(pooled, torch.Tensor) else torch.stack(list(pooled))


def join_features(batch: Sequence[Features]) -> dict[str, Any]:
    """Returns the features of a batch as one `mm_encoder_outputs`."""
    joined: dict[str, Any] = {}
    for kind in ("image", "video"):
        pooled = [part for features in batch for part in features.get(kind, ())]
        if pooled:
            joined[kind] = BaseModelOutputWithPooling(pooler_output=_join(pooled))  # type: ignore[arg-type]
    return joined


def flatten_features(features: Features) -> FlatFeatures:
    """Returns one feature for each placeholder."""
    return {
        kind: torch.cat([_flatten(part) for part in pooled]) for kind, pooled in features.items()
    }


def _flatten(pooled: Pooled) -> torch.Tensor:
    if isinstance(pooled, torch.Tensor):
        return pooled.reshape(-1, pooled.shape[-1])
    return torch.cat([_flatten(picture) for picture in pooled])


def find_placeholders(model: Any, inputs: ModelInputs) -> torch.Tensor:
    """Returns bool[L] on the CPU: True for tokens that stand for pictures."""
    ids = inputs.input_ids[0]
    return torch.isin(ids, torch.tensor([token for _, token in _find_tokens(model)]))


def find_places(model: Any, inputs: ModelInputs) -> dict[str, torch.Tensor]:
    """Returns bool[L] on the CPU for each kind: True for tokens that stand for it."""
    return {kind: inputs.input_ids[0] == token for kind, token in _find_tokens(model)}


def has_placeholders(model: Any) -> bool:
    """Returns True if the model's configuration states the token that stands for an image."""
    return any(kind == "image" for kind, _ in _find_tokens(model))


def _find_tokens(model: Any) -> list[tuple[str, int]]:
    found = []
    for kind in ("image", "video"):
        for name in (f"{kind}_token_id", f"{kind}_token_index"):
            token = getattr(model.config, name, None)
            if token is not None:
                found.append((kind, int(token)))
                break
    return found


def embed(model: Any, inputs: ModelInputs, features: FlatFeatures) -> torch.Tensor:
    """Returns [1, L, d]: the tokens' embeddings, with the features in place of the placeholders."""
    # On the CPU, where the tokens are: a question to the device, or a copy to it that blocks, would wait
    # for all of its earlier work.
    ids = inputs.input_ids[0].clone()
    places = {kind: at.nonzero()[:, 0] for kind, at in find_places(model, inputs).items()}
    for at in places.values():
        ids[at] = 0  # a placeholder may be a token that the embedding does not know
    ids = ids.to(model.device, non_blocking=True)
    whole: torch.Tensor = model.get_input_embeddings()(ids[None])
    for kind, found in features.items():
        at = places[kind]
        if not len(at):  # GLM-4V writes the frames of videos with the token of images
            at = places["image"]
        if len(at) != len(found):
            raise ValueError(
                f"{len(at)} placeholders in the prompt for {len(found)} {kind} features"
            )
        at = at.to(whole.device, non_blocking=True)
        whole[0].index_copy_(0, at, found.to(whole.device, whole.dtype))
    return whole


def _join(pooled: list[Pooled]) -> Pooled:
    """Joins what the families' encoders return: a tensor for each picture, or one of [pictures, tokens, d].

    Models flatten the second kind to [tokens, d]; joined as [1, tokens, d] it may hold
    pictures and videos of different lengths.
    """
    tensors = [part for part in pooled if isinstance(part, torch.Tensor)]
    if len(tensors) == len(pooled):
        return torch.cat([part.flatten(0, 1) for part in tensors])[None]
    return [picture for part in pooled for picture in part]


def _load_pixels(kind: str, value: torch.Tensor, inputs: ModelInputs, model: Any) -> torch.Tensor:
    if kind in inputs.normalisations:
        return inputs.normalisations[kind](value, model.device, model.dtype)
    return send(value, model)


def send(value: torch.Tensor, model: Any) -> torch.Tensor:
    """Copies to the model's device; pixels in its dtype."""
    dtype = model.dtype if value.is_floating_point() and value.ndim > 1 else None
    return value.to(model.device, dtype, non_blocking=True)
