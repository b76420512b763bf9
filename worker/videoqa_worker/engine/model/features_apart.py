"""Finds models whose pictures can be encoded apart from their text.

Slots need this: a prompt is then a row of embeddings that can be cut anywhere, and features can be cached.
It holds where the model puts the output of `get_image_features` in place of the placeholder
tokens, maybe with rotary positions of their own (`rotary_positions`), and does nothing else with pictures:
no attention of their own (Gemma 3), no features for deeper layers (Qwen3-VL), no cross-attention
(Mllama). No configuration tells that, so it is tried at the start, with a prompt with two
pictures and one token after it, by the model itself and with the features apart: what its text model is given
(embeddings, positions, masks, and nothing else) and the logits have to be the same. The pictures are wider than
high, so that axes of positions differ.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from videoqa.errors import VideoQAError
from videoqa_worker.engine.model import vision
from videoqa_worker.engine.model.rotary_positions import find_positions, shape_position_ids
from videoqa_worker.prompt import FrameInput, ModelInputs, Prompter

__all__ = ["JOINED_TYPES", "takes_features_apart"]

JOINED_TYPES = frozenset(
    {"llava", "llava_next", "llava_next_video", "llava_onevision", "video_llava"}
)
"""Types whose code was read and compared for each of their processors: not tried, and joined in padded batches."""
_TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-3}
_ROUGH = 2e-2
"""Largest difference in halves, in parts of the largest value; both sides do the same arithmetic."""
_STATE = {"past_key_values", "use_cache"}
"""Arguments of a text model that are no input."""
_INTERFACE = {"input_ids", "inputs_embeds", "position_ids", "past_key_values"}


def takes_features_apart(model: Any, prompter: Prompter) -> bool:
    """Returns True if the model answers alike with features that were computed apart."""
    if model.config.model_type in JOINED_TYPES:
        return True
    if not _has_interface(model):
        return False
    try:
        inputs = _build_trial(prompter)
    except VideoQAError:
        return False
    accepted = inspect.signature(model.base_model.get_image_features).parameters
    if not inputs.media_inputs.keys() <= accepted.keys() or inputs.videos:
        return False
    try:
        return _compare(model, inputs)
    except Exception:  # noqa: BLE001 - whatever a foreign model raises: it does not fit
        return False


def _has_interface(model: Any) -> bool:
    has_features = hasattr(model.base_model, "get_image_features")
    accepted = inspect.signature(model.forward).parameters
    return has_features and accepted.keys() >= _INTERFACE and vision.has_placeholders(model)


def _build_trial(prompter: Prompter) -> ModelInputs:
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), np.uint8)
    pictures = [FrameInput("image", (frame,)) for frame in noise]
    return prompter.build(pictures, "What is in these two pictures?")


@torch.inference_mode()
def _compare(model: Any, inputs: ModelInputs) -> bool:
    """Returns True if the text model gets the same from both, and both give the same logits."""
    mask = inputs.attention_mask.to(model.device)
    positions = find_positions(model, inputs)
    prompt = {"input_ids": inputs.input_ids.to(model.device), **vision.load_images(model, inputs)}
    own = _run(model, inputs, {"attention_mask": mask, **prompt}, {})
    features = vision.flatten_features(vision.encode(model, inputs))
    prompt_ids = shape_position_ids(positions.prompt).to(model.device)
    token_ids = torch.tensor([[inputs.length + positions.delta]], device=model.device)
    prompt = {"inputs_embeds": vision.embed(model, inputs, features), "position_ids": prompt_ids}
    apart = _run(model, inputs, {"attention_mask": mask, **prompt}, {"position_ids": token_ids})
    for given, found in zip(own, apart, strict=True):
        _align_positions(given, found)
    tolerance = _TOLERANCE.get(model.dtype, _ROUGH)
    return all(_are_alike(one, other, tolerance) for one, other in zip(own, apart, strict=True))


def _run(
    model: Any, inputs: ModelInputs, prompt: dict[str, Any], token: dict[str, Any]
) -> list[dict[str, Any]]:
    """Runs a prompt and one token behind it; returns what the text model was given, and the last logits, of both."""
    seen: list[dict[str, Any]] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(dict(kwargs)), with_kwargs=True
    )
    try:
        first = model(**prompt, use_cache=True)
        last = inputs.input_ids[:, -1:].to(model.device)
        cache = first.past_key_values
        second = model(input_ids=last, past_key_values=cache, use_cache=True, **token)
    finally:
        hook.remove()
    return [
        {name: value for name, value in given.items() if name not in _STATE and value is not None}
        | {"logits": found.logits[0, -8:]}
        for given, found in zip(seen, (first, second), strict=True)
    ]


def _align_positions(own: dict[str, Any], apart: dict[str, Any]) -> None:
    """Fills in positions that the model leaves to its text model, and the axes where all are alike."""
    given, found = own.setdefault("position_ids", apart["position_ids"]), apart["position_ids"]
    if given.ndim > found.ndim:
        apart["position_ids"] = found.expand_as(given)


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
