"""Finds models whose pictures can be encoded apart from their text.

Slots need this: a prompt is then a row of embeddings that can be cut anywhere, and features can be cached.
It holds where the model puts the output of `get_image_features` in place of the placeholder
tokens, maybe with rotary positions of their own (`rotary_positions`) or at several layers (`deep_features`), and
does nothing else with pictures: no cross-attention (Mllama), no attention unknown to `layer_masks`. No configuration
tells that, so it is tried at the start, with a prompt with two pictures, one with a video if the model takes videos,
and one token after each, by the model itself and with the features apart: what its text model is given
(embeddings, positions, masks, and nothing else) and the logits have to be the same. The pictures are wider than high,
so that axes of positions differ.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from videoqa.errors import VideoQAError
from videoqa_worker.engine.model import vision
from videoqa_worker.engine.model.deep_features import DeepFeatures
from videoqa_worker.engine.model.layer_masks import LayerMasks, Masks
from videoqa_worker.engine.model.rotary_positions import find_positions, shape_position_ids
from videoqa_worker.prompt import FrameInput, ModelInputs, Prompter

__all__ = ["JOINED_TYPES", "build_trials", "takes_features_apart"]

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


def takes_features_apart(model: Any, prompter: Prompter, masks: LayerMasks) -> bool:
    """Returns True if the model answers alike with features that were computed apart."""
    if model.config.model_type in JOINED_TYPES:
        return True
    if not _has_interface(model):
        return False
    try:
        trials = list(build_trials(prompter))
    except VideoQAError:
        return False
    accepted = _list_accepted(model)
    if any(not inputs.media_inputs.keys() <= accepted or inputs.videos for inputs in trials):
        return False
    try:
        return all(_compare(model, inputs, masks) for inputs in trials)
    except Exception:  # noqa: BLE001 - whatever a foreign model raises: it does not fit
        return False


def _has_interface(model: Any) -> bool:
    has_features = hasattr(model.base_model, "get_image_features")
    accepted = inspect.signature(model.forward).parameters
    return has_features and accepted.keys() >= _INTERFACE and vision.has_placeholders(model)


def _list_accepted(model: Any) -> set[str]:
    """Returns the processor's outputs that encoders and positions take, and those that `vision` knows itself."""
    takers = ("get_image_features", "get_video_features", "get_rope_index")
    found = (getattr(model.base_model, name, None) for name in takers)
    names = {name for taker in found if taker for name in inspect.signature(taker).parameters}
    return names | {"pixel_values_videos", "video_compression_mask"}


def build_trials(prompter: Prompter) -> Iterator[ModelInputs]:
    """Yields a prompt with two pictures, and one with a video if the model takes videos."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), np.uint8)
    pictures = [FrameInput("image", (frame,)) for frame in noise]
    yield prompter.build(pictures, "What is in these two pictures?")
    if prompter.takes_videos:  # a frame that does not change, since some processors leave such out
        frames = (*noise, noise[1], noise[0])
        yield prompter.build([FrameInput("video", frames, (0.0, 1.0, 2.5, 3.0))], "What happens?")


@torch.inference_mode()
def _compare(model: Any, inputs: ModelInputs, masks: LayerMasks) -> bool:
    """Returns True if the text model gets the same from both, and both give the same logits."""
    mask = inputs.attention_mask.to(model.device)
    positions = find_positions(model, inputs)
    prompt = {"input_ids": inputs.input_ids.to(model.device), **vision.load_images(model, inputs)}
    own = _run(model, inputs, {"attention_mask": mask, **prompt}, {})
    features = vision.flatten_features(vision.encode(model, inputs))
    prompt_ids = shape_position_ids(positions.prompt).to(model.device)
    token_ids = torch.tensor([[inputs.length + positions.delta]], device=model.device)
    deep = DeepFeatures.find(model, inputs, features)
    if deep is None:
        prompt = {"inputs_embeds": vision.embed(model, inputs, features)}
    else:
        prompt = {"input_ids": prompt["input_ids"], **deep.slice(0, inputs.length)}
    slots_mask = mask if masks.is_plain else _make_masks(model, inputs, masks)
    given = {"attention_mask": slots_mask, "position_ids": prompt_ids}
    apart = _run(model, inputs, {**given, **prompt}, {"position_ids": token_ids})
    for given, found in zip(own, apart, strict=True):
        _align_positions(given, found)
        if slots_mask is not mask:  # compared already, see `layer_masks`
            for one in (given, found):
                one.pop("attention_mask", None)
    tolerance = _TOLERANCE.get(model.dtype, _ROUGH)
    return all(_are_alike(one, other, tolerance) for one, other in zip(own, apart, strict=True))


def _make_masks(model: Any, inputs: ModelInputs, masks: LayerMasks) -> Masks:
    """Returns the masks of a prompt in slots."""
    positions = torch.arange(inputs.length, device=model.device)[None]
    blocks = masks.find_blocks(inputs)
    if blocks is not None:
        blocks = blocks.to(model.device)
    return masks.build(inputs.length, positions, 0, 0, blocks)


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
    if isinstance(one, list) and isinstance(other, list):  # features for deeper layers
        same = len(one) == len(other)
        return same and all(map(partial(_are_alike, tolerance=tolerance), one, other))
    return type(one) is type(other) and bool(one == other)
