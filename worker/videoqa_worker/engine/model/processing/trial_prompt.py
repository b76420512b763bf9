"""Builds a small prompt before the weights are loaded: a processor of another model shows there.

So do settings of the vision part that do not fit the processor: a model without memory for weights tells the number
of features that it would put in place of the prompt's tokens.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from videoqa.errors import ConfigurationError, MarkMismatch, PromptTooLong, UnsupportedInput
from videoqa_worker.engine.model.features_apart import JOINED_TYPES
from videoqa_worker.prompt import FrameInput, ModelInputs, Prompter

__all__ = ["check_features", "check_prompt"]

Kind = Literal["image", "video"]


def check_prompt(name: str, prompter: Prompter, model_config: Any) -> None:
    """Builds a prompt with a picture, and one with a video if the model takes videos.

    Raises:
        ConfigurationError: the processor fails, or the prompt lacks the token for which the model puts in pictures.
    """
    kinds: tuple[Kind, ...] = ("image", "video") if prompter.takes_videos else ("image",)
    for kind in kinds:
        expected = {_find_token(model_config, kind)}
        if kind == "video":  # GLM-4V and InternVL write the frames of a video as images
            expected.add(_find_token(model_config, "image"))
        try:
            inputs = _build(prompter, kind)
        except MarkMismatch:
            continue
        except PromptTooLong as error:
            raise ConfigurationError(
                f"the context of {name} is too small for a question about one small {kind} ({error}): correct "
                "max_position_embeddings in config.json, or raise max_context if it is set",
                param="model",
            ) from error
        except UnsupportedInput as error:
            raise ConfigurationError(
                f"the processor of {name} fails on a small {kind} ({error.__cause__ or error}): it is of another "
                "model; download preprocessor_config.json, processor_config.json and tokenizer.json again",
                param="model",
            ) from error
        if not _is_finite(inputs, kind):
            raise ConfigurationError(
                f"the processor of {name} makes numbers without end of a small {kind}, as by an image_std of 0: "
                "correct preprocessor_config.json, or download it again",
                param="model",
            )
        tokens = sorted(token for token in expected if token is not None)
        if tokens and not any(token in inputs.input_ids for token in tokens):
            raise ConfigurationError(
                f"the prompts of {name} have no token {tokens[0]}, in whose place its configuration puts {kind}s: "
                "config.json and tokenizer.json are of different models; download both again",
                param="model",
            )


def check_features(name: str, model: Any, prompter: Prompter) -> None:
    """Checks that a model on the `meta` device makes as many features of a picture as its prompts have tokens for it.

    Only models of the LLaVA family, whose vision parts run without memory.

    Raises:
        ConfigurationError: they are more or fewer, or the vision part fails.
    """
    if model.config.model_type not in JOINED_TYPES:
        return
    inputs = _build(prompter, "image")
    token = _find_token(model.config, "image")
    expected = inputs.input_ids.flatten().tolist().count(token)
    try:
        found = _count_features(model, inputs)
    except NotImplementedError:
        return  # an operation that needs values: the first question tells
    except Exception as error:
        if "meta" in str(error):
            return
        reason = f"fails on a small picture ({type(error).__name__}: {error})"[:400]
        raise _make_misfit(name, reason) from error
    if found != expected:
        raise _make_misfit(
            name,
            f"makes {found} features of a picture, for which its prompts have {expected} tokens",
        )


def _make_misfit(name: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the vision part of {name} {reason}: config.json (vision_config, vision_feature_layer, "
        "vision_feature_select_strategy) and preprocessor_config.json or processor_config.json do not fit together; "
        "download them again",
        param="model",
    )


def _count_features(model: Any, inputs: ModelInputs) -> int:
    given = dict(inputs.images)
    pixels = given.pop("pixel_values")
    with torch.inference_mode():
        pooled = model.base_model.get_image_features(
            pixel_values=torch.empty(pixels.shape, dtype=model.dtype, device="meta"),
            return_dict=True,
            **given,
        ).pooler_output
    parts = pooled if isinstance(pooled, list | tuple) else [pooled]
    return sum(part.shape[:-1].numel() for part in parts)


def _is_finite(inputs: ModelInputs, kind: Kind) -> bool:
    pixels = inputs.videos[0] if inputs.videos else inputs.images.get("pixel_values")
    if pixels is None:
        return True
    if kind in inputs.normalisations:
        pixels = inputs.normalisations[kind](pixels, torch.device("cpu"), torch.float32)
    return bool(torch.isfinite(pixels).all())


def _build(prompter: Prompter, kind: Kind) -> ModelInputs:
    return prompter.build([_make_media(kind)], "What is this?")


def _make_media(kind: Kind) -> FrameInput:
    return FrameInput(kind, (np.zeros((32, 32, 3), np.uint8),))


def _find_token(model_config: Any, kind: Kind) -> int | None:
    for name in (f"{kind}_token_id", f"{kind}_token_index"):
        token = getattr(model_config, name, None)
        if isinstance(token, int):
            return token
    return None
