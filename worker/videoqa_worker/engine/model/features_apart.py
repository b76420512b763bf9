"""Finds models whose pictures can be encoded apart from their text.

Slots need this: a prompt is then a row of embeddings that can be cut anywhere, and features can be cached.
It holds where the model puts the output of `get_image_features` in place of the placeholder
tokens and does nothing else with pictures: no positions of their own (Qwen2-VL), no
attention of their own (Gemma 3), no features for deeper layers (Qwen3-VL), no cross-attention
(Mllama). No configuration tells that, so it is tried at the start, with a prompt with two
pictures, by the model itself and with the features apart: what its text model is given (embeddings,
positions, masks, and nothing else) and the logits have to be the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from videoqa.errors import VideoQAError
from videoqa_worker.engine.model import vision
from videoqa_worker.prompt import FrameInput, ModelInputs, Prompter

__all__ = ["JOINED_TYPES", "takes_features_apart"]

JOINED_TYPES = frozenset(
    {"llava", "llava_next", "llava_next_video", "llava_onevision", "video_llava"}
)
"""Types whose code was read and compared for each of their processors: not tried, and joined in padded batches."""
_TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-3}
_ROUGH = 2e-2
"""Largest difference in halves, in parts of the largest value; both sides do the same arithmetic."""
_INTERFACE = {"input_ids", "inputs_embeds", "position_ids", "past_key_values"}


def takes_features_apart(model: Any, prompter: Prompter) -> bool:
    """Returns True if the model answers alike with features that were computed apart."""
    if model.config.model_type in JOINED_TYPES:
        return True
    if not _has_interface(model):
        return False
    try:
        trials = list(_build_trials(prompter))
    except VideoQAError:
        return False
    accepted = {
        name
        for kind in ("image", "video")
        for name in inspect.signature(
            getattr(model.base_model, f"get_{kind}_features", model.base_model.get_image_features)
        ).parameters
    } | {"pixel_values_videos", "video_compression_mask"}
    if any(not inputs.images.keys() <= accepted for inputs in trials):
        return False
    try:
        return all(_compare(model, inputs) for inputs in trials)
    except Exception:  # noqa: BLE001 - whatever a foreign model raises: it does not fit
        return False


def _has_interface(model: Any) -> bool:
    has_features = hasattr(model.base_model, "get_image_features")
    accepted = inspect.signature(model.forward).parameters
    return has_features and accepted.keys() >= _INTERFACE and vision.has_placeholders(model)


def _build_trials(prompter: Prompter) -> Iterator[ModelInputs]:
    """Yields a prompt with two pictures, and one with a video if the model takes videos."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    pictures = [FrameInput("image", (frame,)) for frame in noise]
    yield prompter.build(pictures, "What is in these two pictures?")
    if prompter.takes_videos:  # a frame that does not change, since some processors leave such out
        frames = (*noise, noise[1], noise[0])
        yield prompter.build([FrameInput("video", frames, (0.0, 1.0, 2.5, 3.0))], "What happens?")


@torch.inference_mode()
def _compare(model: Any, inputs: ModelInputs) -> bool:
    """Returns True if the text model gets the same from both, and both give the same logits."""
    mask = inputs.attention_mask.to(model.device)
    own, own_given = _run(
        model,
        input_ids=inputs.input_ids.to(model.device),
        attention_mask=mask,
        **vision.load_images(model, inputs),
    )
    features = vision.flatten_features(vision.encode(model, inputs))
    positions = torch.arange(inputs.length, device=model.device)[None]
    apart, apart_given = _run(
        model,
        inputs_embeds=vision.embed(model, inputs, features),
        attention_mask=mask,
        position_ids=positions,
    )
    if own_given.get("position_ids") is None:
        own_given["position_ids"] = positions
    tolerance = _TOLERANCE.get(model.dtype, _ROUGH)
    return _are_alike(own_given, apart_given, tolerance) and _are_alike(own, apart, tolerance)


def _run(model: Any, **given: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """Runs a forward pass; returns the last logits, and what its text model was given."""
    seen: list[dict[str, Any]] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(dict(kwargs)), with_kwargs=True
    )
    try:
        logits = model(**given, use_cache=False).logits[0, -8:]
    finally:
        hook.remove()
    (kwargs,) = seen
    return logits, {name: value for name, value in kwargs.items() if value is not None}


def _are_alike(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape:
            return False
        if not one.is_floating_point():  # positions and masks
            return torch.equal(one, other)
        difference = (one.float() - other.float()).abs().max()
        return bool(difference <= tolerance * one.float().abs().max())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        same = one.keys() == other.keys()
        return same and all(_are_alike(one[key], other[key], tolerance) for key in one)
    return type(one) is type(other) and bool(one == other)
