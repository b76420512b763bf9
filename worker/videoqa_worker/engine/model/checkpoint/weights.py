"""Loads a checkpoint's weights, and checks beforehand that they are those of its model.

The check builds the model on torch's `meta` device, where tensors have shapes and no memory, and reads the headers
of the weight files: a checkpoint whose configuration is of another size would otherwise fill the memory with noise.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig
from transformers.quantizers.auto import get_hf_quantizer

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.extras import (
    describe_missing_package,
    describe_packages,
)
from videoqa_worker.engine.model.device_choice import choose_dtype
from videoqa_worker.settings import EngineConfig

__all__ = ["check_quantized", "check_weights", "find_quantization", "load_weights"]

_UNQUANTIZED = [
    r"(\w+\.){0,3}(\w*(vision|visual|image|video|audio)\w*|((mm|multi_modal|language)_)?projec(tor|tion)|connector"
    r"|(generation_)?aligner|(patch_)?merger|(\w+_)?resampler(_model)?|qformer|vqmodel|(sam|protein)_encoder)",
    "lm_head",
    r"output\Z",
    "predictions.decoder",
]
"""Names of the vision parts in known models, no deeper than a text model's layers, and of the output layer."""
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed-tensors",),
    "torchao": ("torchao",),
    "bitsandbytes": ("bitsandbytes",),
    "quanto": ("optimum-quanto",),
    "hqq": ("hqq",),
    "aqlm": ("aqlm",),
    "auto-round": ("auto-round",),
    "quark": ("amd-quark",),
    "fbgemm_fp8": ("fbgemm-gpu",),
    "eetq": ("kernels",),
    "fp_quant": ("fp-quant",),
    "higgs": ("flute-kernel",),
    "vptq": ("vptq",),
    "spqr": ("spqr-quant",),
    "sinq": ("sinq",),
    "fouroversix": ("fouroversix",),
}
"""Packages by the quantization that a checkpoint states; transformers names one at a time, or a GPU first."""
SCALES = re.compile(
    r"(scales?|scale_inv|scale_weight|scale_input|weight_scale|qweight|qzeros|absmax|quant_map|zero_point|weight_packed)$"
)
"""Names of weights that belong to quantized ones."""
_NUMBER = re.compile(r"\b[0-9]+\b")
_NO_ADAPTER: dict[str, Any] = {"adapter_kwargs": {"subfolder": "none"}}
"""With peft installed, transformers would load an adapter that lies beside the model: it looks in this folder."""


def check_quantized(config: EngineConfig, model_config: Any) -> None:
    """Checks that the libraries of a quantized checkpoint are here, and that this device can run it.

    Raises:
        ConfigurationError: it cannot run here, or an adapter or another quantization is set beside it.
    """
    stated = find_quantization(model_config)
    if stated is None:
        return
    for field in ("adapter", "quantization"):
        if getattr(config, field) not in (None, "none"):
            raise ConfigurationError(
                f"got {field}={getattr(config, field)!r} with {config.checkpoint}, whose weights are quantized "
                "already, expected one in full precision; choose that one, or leave the setting out",
                param=field,
            )
    problem = _find_problem(model_config, stated.get("quant_method"))
    if problem is not None:
        raise ConfigurationError(
            f"{config.checkpoint} is quantized ({stated.get('quant_method')}), and {problem}; or take it in full "
            "precision, or serve it with software that runs it, and set VIDEOQA_SERVER_URL",
            param="model",
        )


def _find_problem(model_config: Any, method: str | None) -> str | None:
    """Returns why a quantized checkpoint cannot run here; None if it can."""
    if missing := describe_packages(LIBRARIES.get(str(method), ())):
        return missing
    try:
        with _silence():
            make: Any = get_hf_quantizer  # untyped
            quantizer, *_ = make(copy.deepcopy(model_config), None, None, True, {})
    except Exception as error:  # noqa: BLE001 - each library has errors of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return describe_missing_package(error) or f"transformers refuses it here ({lines[0]:.200})"
    return None if quantizer is not None else "transformers does not know this kind"


def find_quantization(model_config: Any) -> Any:
    """Returns the settings by which a checkpoint's weights are quantized; None if they are not."""
    text = model_config.get_text_config(decoder=True)
    return getattr(model_config, "quantization_config", None) or getattr(
        text, "quantization_config", None
    )


def check_weights(name: str, hub: dict[str, Any]) -> Any:
    """Checks that the weight files have each weight of the model, in its shape; reads no weight.

    Returns the model on the `meta` device; None for one that cannot be built there.

    Raises:
        ConfigurationError: weights are missing, or of other shapes.
    """
    with _silence():
        try:
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                name,
                output_loading_info=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                device_map={"": "meta"},
                **_NO_ADAPTER,
                **hub,
            )
        except NotImplementedError:
            return None  # a model that computes while it is built: the load itself tells
    _check_report(name, *loaded)
    return _return_objects(loaded[0])


def load_weights(config: EngineConfig, device: torch.device, hub: dict[str, Any]) -> Any:
    """Returns the model in evaluation mode, on its device.

    Raises:
        ConfigurationError: the checkpoint lacks weights.
    """
    options: dict[str, Any] = {"dtype": choose_dtype(config, device), "use_safetensors": True}
    if config.attn_implementation:
        options["attn_implementation"] = config.attn_implementation
    if config.quantization:
        options["quantization_config"] = _make_quantization(config, device)
    if config.device_map or config.quantization:
        options["device_map"] = config.device_map or {"": device}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        config.checkpoint, output_loading_info=True, **_NO_ADAPTER, **hub, **options
    )
    model, report = loaded
    _check_report(config.checkpoint, model, report)
    if "device_map" not in options:
        model.to(device)
    return _return_objects(model).eval()


def _return_objects(model: Any) -> Any:
    """Returns the model, whose parts return objects even if its configuration has `return_dict` false."""
    for module in model.modules():
        if getattr(getattr(module, "config", None), "return_dict", None) is False:
            module.config.return_dict = True
    return model


def _check_report(name: str, model: Any, report: dict[str, Any]) -> None:
    """Raises ConfigurationError if the weight files are not those of the model."""
    unexpected = sorted(report["unexpected_keys"])
    if packed := [key for key in unexpected if SCALES.search(key)]:
        raise ConfigurationError(
            f"{name} has quantized weights ({packed[0]}, ...), and its config.json does not tell how "
            "(quantization_config): take it in full precision, or as transformers saves quantized models",
            param="model",
        )
    if mismatched := sorted(report["mismatched_keys"]):
        weight, found, expected = mismatched[0]
        raise ConfigurationError(
            f"{name} has {len(mismatched)} weights of other shapes than its configuration asks for ({weight}: "
            f"{list(found)} in the file, expected {list(expected)}): config.json is of another model; download both "
            "again",
            param="model",
        )
    if missing := sorted(report["missing_keys"]):
        raise ConfigurationError(
            f"{name} lacks {len(missing)} weights that its configuration asks for "
            f"({missing[0]}, ...): transformers would fill them with noise; download it again, "
            "or take another revision",
            param="model",
        )
    known = {_NUMBER.sub("#", key) for key in model.state_dict()}
    if more := [key for key in unexpected if _NUMBER.sub("#", key) in known]:
        raise ConfigurationError(
            f"{name} has {len(more)} weights more than its configuration asks for ({more[0]}, ...), as of further "
            "layers, which would be left out: config.json is of another model; download both again",
            param="model",
        )


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
def _silence() -> Iterator[None]:
    """Turns transformers' log off: it prints a table of what the raised error says in a line."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
