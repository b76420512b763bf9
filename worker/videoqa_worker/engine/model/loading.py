"""Loads a model, its processor and its revision by the name of a checkpoint.

Every error of transformers, the hub and the allocator becomes a ConfigurationError that states the
next step. `videoqa doctor` takes the same way up to the weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, GenerationConfig, GenerationMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils.hub import extract_commit_hash

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.adapter import (
    Adapter,
    check_adapter,
    find_adapter,
    merge_adapter,
)
from videoqa_worker.engine.model.checkpoint.foreign import refuse_foreign_config
from videoqa_worker.engine.model.checkpoint.generation_config import (
    CheckpointGeneration,
    adopt,
    read_generation_config,
)
from videoqa_worker.engine.model.checkpoint.loading_errors import (
    check_name,
    name_part,
    translate_errors,
)
from videoqa_worker.engine.model.checkpoint.small_files import check_small_files, open_folder
from videoqa_worker.engine.model.checkpoint.weight_files import (
    Weights,
    digest_folder,
    inspect_weights,
)
from videoqa_worker.engine.model.checkpoint.weights import (
    check_quantized,
    check_weights,
    find_quantization,
    load_weights,
)
from videoqa_worker.engine.model.device_choice import choose_device, set_threads
from videoqa_worker.engine.model.features_apart import (
    JOINED_TYPES,
    build_trials,
    takes_features_apart,
)
from videoqa_worker.engine.model.layer_masks import LayerMasks, find_layer_masks
from videoqa_worker.engine.model.loading_progress import loading_progress
from videoqa_worker.engine.model.logits_processors import ProcessorFactory
from videoqa_worker.engine.model.packed_linear import pack_linears
from videoqa_worker.engine.model.processing.processor import load_processor
from videoqa_worker.engine.model.processing.trial_prompt import check_features, check_prompt
from videoqa_worker.machine import count_cores
from videoqa_worker.prompt import Prompter
from videoqa_worker.settings import EngineConfig

__all__ = ["LoadedModel", "OpenedCheckpoint", "inspect_checkpoint", "load", "open_checkpoint"]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to run, with its tokenizer and prompter."""

    model: Any
    tokenizer: Any
    prompter: Prompter
    generation: CheckpointGeneration
    """The checkpoint's own generation settings that are in force."""
    features_apart: bool
    """True if pictures can be encoded apart from the text, see `features_apart`."""
    joins: bool
    """True for the LLaVA family, whose prompts can be joined to padded batches."""
    revision: str
    """The hub's commit, or `sha256:...` of a local folder; with an adapter, that and the adapter's."""
    masks: LayerMasks = field(default_factory=LayerMasks)
    """Attention of the layers of its text model, if `features_apart`."""


class OpenedCheckpoint(NamedTuple):
    """A checkpoint whose small files are read and checked."""

    commit: str | None
    """The hub's commit; None for a folder."""
    hub: dict[str, Any]
    """Arguments of `from_pretrained` that name the commit."""
    model_config: Any
    processor: Any
    prompter: Prompter
    generation: CheckpointGeneration
    adapter: Adapter | None


def open_checkpoint(
    config: EngineConfig, on_state: Callable[[str], None]
) -> tuple[OpenedCheckpoint, str]:
    """Reads and checks a checkpoint for an engine that loads the weights itself; returns its revision as well.

    Raises:
        ConfigurationError: as `load`.
    """
    with translate_errors(config.checkpoint):
        opened = _open(config, on_state)
        return opened, opened.commit or digest_folder(Path(config.checkpoint))


def load(config: EngineConfig, on_state: Callable[[str], None]) -> LoadedModel:
    """Loads the checkpoint.

    Raises:
        ConfigurationError: not found, not reachable, not for images, no safetensors, not enough memory.
    """
    device = choose_device(config)
    with translate_errors(config.checkpoint):
        opened = _open(config, on_state)
        quantized = _is_quantized(opened)
        inspect_weights(config.checkpoint, opened.commit, quantized=quantized)
        on_state("loading weights")
        with loading_progress(on_state) as bar:
            hub = {**opened.hub, "tqdm_class": bar}
            if not config.quantization and not quantized:
                _check_weights(config, opened, hub)
            model = load_weights(config, device, hub)
        set_threads(config, os.environ, model, cores=count_cores())
        revision = opened.commit or digest_folder(Path(config.checkpoint))
    if opened.adapter is not None:
        on_state("merging the adapter")
        model = merge_adapter(model, opened.adapter)
        revision = f"{revision}+{opened.adapter.digest}"
    # `generate` takes what a call leaves open from here: nothing that this worker does not know of.
    generation = opened.generation
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, pad_token_id=generation.pad, **generation.begins
    )
    pack_linears(model)
    on_state("trying the model")
    masks = _find_masks(model, opened.prompter)
    apart = masks is not None and takes_features_apart(model, opened.prompter, masks)
    joins = opened.model_config.model_type in JOINED_TYPES
    tokenizer = opened.processor.tokenizer
    return LoadedModel(
        model,
        tokenizer,
        opened.prompter,
        generation,
        apart,
        joins,
        revision,
        masks or LayerMasks(),
    )


def _find_masks(model: Any, prompter: Prompter) -> LayerMasks | None:
    try:
        return find_layer_masks(model, lambda: next(build_trials(prompter)))
    except Exception:  # noqa: BLE001 - whatever a foreign model raises: it does not fit
        return None


def inspect_checkpoint(config: EngineConfig) -> Weights:
    """Checks that a checkpoint would load: all that `load` checks before it reads weights.

    Downloads the small files if they are not here; reads no weight.

    Raises:
        ConfigurationError: as `load`.
    """
    with translate_errors(config.checkpoint), loading_progress(_ignore_state):
        opened = _open(config)
        quantized = _is_quantized(opened)
        weights = inspect_weights(config.checkpoint, opened.commit, quantized=quantized)
        if not weights.missing_files and not quantized:
            _check_weights(config, opened, opened.hub)
        return weights


def _check_weights(config: EngineConfig, opened: OpenedCheckpoint, hub: dict[str, Any]) -> None:
    with name_part(config.checkpoint, "config.json"):
        model = check_weights(config.checkpoint, hub)
    if model is None:
        return
    check_features(config.checkpoint, model, opened.prompter)
    if opened.adapter is not None:
        check_adapter(model, opened.adapter)


def _ignore_state(state: str) -> None:
    pass


def _open(
    config: EngineConfig, on_state: Callable[[str], None] = _ignore_state
) -> OpenedCheckpoint:
    on_state("loading configuration")
    name = config.checkpoint
    check_name(name)
    folder = open_folder(name, config.revision)
    stated = check_small_files(folder)
    refuse_foreign_config(name, stated)
    commit = None
    if not Path(name).is_dir():
        commit = extract_commit_hash(str(folder / "config.json"), None) or config.revision or "main"
    hub: dict[str, Any] = {"revision": commit, "trust_remote_code": False}
    model_config = _load_config(config, hub)
    check_quantized(config, model_config)
    adapter = find_adapter(config, commit)
    on_state("loading processor")
    processor = load_processor(name, model_config, config.pixels, **hub)
    with name_part(name, "processor_config.json, preprocessor_config.json or config.json"):
        prompter = Prompter(
            processor,
            model_config,
            chat_template=config.chat_template,
            max_context=config.max_context,
            pixel_cache_bytes=config.pixel_cache_bytes,
        )
        check_prompt(name, prompter, model_config)
    generation = _adopt_generation(config, model_config, processor, hub)
    return OpenedCheckpoint(commit, hub, model_config, processor, prompter, generation, adapter)


def _is_quantized(opened: OpenedCheckpoint) -> bool:
    return find_quantization(opened.model_config) is not None


def _adopt_generation(
    config: EngineConfig, model_config: Any, processor: Any, hub: dict[str, Any]
) -> CheckpointGeneration:
    """Returns the checkpoint's generation settings; each value was tried once."""
    own = read_generation_config(config.checkpoint, hub)
    generation = adopt(own, config.checkpoint, model_config, processor.tokenizer)
    ProcessorFactory(generation, torch.device("cpu"))
    return generation


def _load_config(config: EngineConfig, hub: dict[str, Any]) -> Any:
    with name_part(config.checkpoint, "config.json"):
        model_config = AutoConfig.from_pretrained(config.checkpoint, **hub)
    if type(model_config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ConfigurationError(
            f"got model={config.checkpoint!r} of type {model_config.model_type!r}, expected one that "
            "answers text about images; choose a checkpoint for image-text-to-text",
            param="model",
        )
    kind: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(model_config)]
    if not issubclass(kind[0] if isinstance(kind, tuple) else kind, GenerationMixin):
        raise ConfigurationError(
            f"got model={config.checkpoint!r} of type {model_config.model_type!r}, which does not write a token after "
            "the other, expected one that does; choose another checkpoint",
            param="model",
        )
    return model_config
