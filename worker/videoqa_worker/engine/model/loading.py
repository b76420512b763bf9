"""Loads a model, its processor and its revision by the name of a checkpoint.

Every error of transformers, the hub and the allocator becomes a ConfigurationError that states the
next step.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils.hub import cached_file, extract_commit_hash

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint import Weights, digest_folder, inspect_weights
from videoqa_worker.engine.model.loading_progress import loading_progress
from videoqa_worker.engine.model.processor import PROCESSORS, load_processor
from videoqa_worker.prompt import Prompter
from videoqa_worker.settings import EngineConfig

__all__ = [
    "LoadedModel",
    "choose_device",
    "choose_dtype",
    "choose_threads",
    "inspect_checkpoint",
    "load",
    "resolve_commit",
]

_UNQUANTIZED = [
    r"(\w+\.){0,3}(\w*(vision|visual|image|video|audio)\w*|((mm|multi_modal|language)_)?projec(tor|tion)|connector"
    r"|(generation_)?aligner|(patch_)?merger|(\w+_)?resampler(_model)?|qformer|vqmodel|(sam|protein)_encoder)",
    "lm_head",
    r"output\Z",
    "predictions.decoder",
]
"""Names of the vision parts in known models, no deeper than a text model's layers, and of the output layer."""
KEPT_SETTINGS = ("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens")
"""Generation settings of a checkpoint that shape a greedy answer as well."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to run, with its tokenizer and prompter."""

    model: Any
    tokenizer: Any
    prompter: Prompter
    eos: frozenset[int]
    """Tokens that end an answer, by the checkpoint's own generation settings."""
    pad: int
    llava: bool
    """True for the LLaVA family, whose features can be computed apart from the text."""
    revision: str
    """The hub's commit, or `sha256:...` of a local folder."""


def load(config: EngineConfig, on_state: Callable[[str], None]) -> LoadedModel:
    """Loads the checkpoint.

    Raises:
        ConfigurationError: not found, not reachable, not for images, no safetensors, not enough memory.
    """
    device = choose_device(config)
    threads = choose_threads(config, os.environ)
    if threads is not None:
        torch.set_num_threads(threads)
    with translate_errors(config):
        on_state("loading configuration")
        commit = resolve_commit(config)
        hub: dict[str, Any] = {"revision": commit, "trust_remote_code": False}
        model_config = _load_config(config, hub)
        on_state("loading processor")
        processor = load_processor(config.checkpoint, model_config, config.pixels, **hub)
        on_state("loading weights")
        with loading_progress(on_state) as bar:
            model = _load_model(config, device, {**hub, "tqdm_class": bar})
        revision = commit or digest_folder(Path(config.checkpoint))
    prompter = Prompter(
        processor,
        model.config,
        chat_template=config.chat_template,
        max_context=config.max_context,
    )
    eos, pad = adopt_generation_config(model, processor.tokenizer)
    llava = model_config.model_type in PROCESSORS
    return LoadedModel(model, processor.tokenizer, prompter, eos, pad, llava, revision)


def inspect_checkpoint(config: EngineConfig) -> Weights:
    """Checks that a checkpoint would load: its configuration, its processor, and the headers of its weights.

    Downloads the small files if they are not here; reads no weight.

    Raises:
        ConfigurationError: as `load`.
    """
    with translate_errors(config):
        commit = resolve_commit(config)
        hub: dict[str, Any] = {"revision": commit, "trust_remote_code": False}
        model_config = _load_config(config, hub)
        processor = load_processor(config.checkpoint, model_config, config.pixels, **hub)
        Prompter(processor, model_config, chat_template=config.chat_template)
        return inspect_weights(config.checkpoint, commit)


def _load_config(config: EngineConfig, hub: dict[str, Any]) -> Any:
    model_config = AutoConfig.from_pretrained(config.checkpoint, **hub)
    if type(model_config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ConfigurationError(
            f"got model={config.checkpoint!r} of type {model_config.model_type!r}, expected one that "
            "answers text about images; choose a checkpoint for image-text-to-text",
            param="model",
        )
    return model_config


def resolve_commit(config: EngineConfig) -> str | None:
    """Returns the hub's commit of a branch or tag, from which all files are then taken; None for a folder."""
    if Path(config.checkpoint).is_dir():
        return None
    found = cached_file(config.checkpoint, "config.json", revision=config.revision or "main")
    return extract_commit_hash(found, None) or config.revision or "main"


def _load_model(config: EngineConfig, device: torch.device, hub: dict[str, Any]) -> Any:
    options: dict[str, Any] = {"dtype": choose_dtype(config, device), "use_safetensors": True}
    if config.attn_implementation:
        options["attn_implementation"] = config.attn_implementation
    if config.quantization:
        options["quantization_config"] = _make_quantization(config, device)
    if config.device_map or config.quantization:
        options["device_map"] = config.device_map or {"": device}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        config.checkpoint, output_loading_info=True, **hub, **options
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ConfigurationError(
            f"{config.checkpoint} lacks {len(missing)} weights that its configuration asks for "
            f"({missing[0]}, ...): transformers would fill them with noise; download it again, "
            "or take another revision",
            param="model",
        )
    if "device_map" not in options:
        model.to(device)
    return model.eval()


def adopt_generation_config(model: Any, tokenizer: Any) -> tuple[frozenset[int], int]:
    """Replaces the model's generation config; returns its end tokens and its padding token.

    `generate` fills what a call leaves open from the checkpoint's generation settings. Those
    that shape a greedy answer too stay, as in plain `generate`; sampling, beams and lengths
    come from the request.
    """
    own = model.generation_config
    kept = {name: getattr(own, name, None) for name in KEPT_SETTINGS}
    ends = own.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    eos = frozenset([ends] if isinstance(ends, int) else ends or ())
    pads = (own.pad_token_id, tokenizer.pad_token_id, *sorted(eos), 0)
    pad = next(token for token in pads if token is not None)
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=pad, **kept)  # type: ignore[no-untyped-call]
    return eos, int(pad)


def choose_threads(config: EngineConfig, environ: Mapping[str, str]) -> int | None:
    """Returns the number of torch's threads; None leaves it to torch, which reads OMP_NUM_THREADS.

    One by default: torch's threads spin while they wait for each other, on cores that the decoding
    processes and the other jobs' pixels need.
    """
    if config.cpu_threads is not None:
        return config.cpu_threads
    return None if environ.get("OMP_NUM_THREADS") else 1


def choose_device(config: EngineConfig) -> torch.device:
    """Returns the configured device, or the best one for `auto`.

    Raises:
        ConfigurationError: torch cannot use it.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"got device={config.device!r}, expected one that torch can use here: {error}; "
            'set it to "cpu" or install the driver',
            param="device",
        ) from error
    return device


def choose_dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    """Returns the configured dtype, or for `auto` the best one that the device supports."""
    if config.dtype != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[config.dtype]
    if device.type == "cpu":
        return torch.float32
    has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float16


def _make_quantization(config: EngineConfig, device: torch.device) -> Any:
    """Returns settings that quantize the text model only: the vision encoder needs little memory."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            f"got quantization={config.quantization!r} without bitsandbytes; "
            "pip install './worker[quantized]' in your clone, or leave quantization out",
            param="quantization",
        )
    # It logs at each pass that it works in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if config.quantization == "8bit":
        options: dict[str, Any] = {"load_in_8bit": True}
    else:
        options = {"load_in_4bit": True, "bnb_4bit_compute_dtype": choose_dtype(config, device)}
    return BitsAndBytesConfig(llm_int8_skip_modules=_UNQUANTIZED, **options)  # type: ignore[no-untyped-call]


@contextmanager
def translate_errors(config: EngineConfig) -> Iterator[None]:
    """Raises foreign errors within the block as ConfigurationError."""
    name = config.checkpoint
    try:
        if name.startswith((".", "/", "~")) and not Path(name).is_dir():
            raise ConfigurationError(
                f"got model={name!r}, expected a folder with config.json: there is none",
                param="model",
            )
        yield
    except ConfigurationError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ConfigurationError(
            f"not enough memory for {name} on this device: {error}; "
            'use a smaller model, quantization="4bit", or device_map="auto" over several GPUs',
            param="model",
        ) from error
    except Exception as error:
        raise ConfigurationError(
            f"cannot load {name}: {_describe(error)}", param="model"
        ) from error


def _describe(error: Exception) -> str:
    """Returns the first line of an error, and the next step if it is known."""
    text = str(error)
    first = text.strip().splitlines()[0].rstrip(".: ") if text.strip() else type(error).__name__
    hints = {
        "safetensors": "the weights must be .safetensors: convert them, or take another revision",
        "couldn't connect": "check the network, HF_HUB_OFFLINE and HF_HOME, or download it before",
        "offline mode": "unset HF_HUB_OFFLINE, or download the checkpoint before",
        "not a local folder": "check the name; a private checkpoint needs HF_TOKEN",
        "deserializing": "the weights are cut off or damaged: download them again",
        "backend tokenizer": "expected tokenizer.json beside config.json",
        "repository not found": "check the name; a private checkpoint needs HF_TOKEN",
        "gated": "accept its licence on the hub and set HF_TOKEN",
        "config.json": "expected the folder of a checkpoint saved by transformers",
    }
    hint = next((hint for sign, hint in hints.items() if sign in text.lower()), "")
    return f"{first}{'; ' + hint if hint else ''}"
