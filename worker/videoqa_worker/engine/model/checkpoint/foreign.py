"""Recognises checkpoints that transformers does not load by itself, and names where to go with each.

Three kinds are common: files of another library (the originals of LLaVA, Llama and Mistral, GGUF, ONNX, MLX,
diffusers), checkpoints whose code comes with them, and adapters without their model. None of
them is loaded: code of strangers is not run. Where the same weights exist in transformers' format, their name
on the hub is given; elsewhere a model server may run them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from transformers import __version__ as transformers_version
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from videoqa.errors import ConfigurationError

__all__ = ["refuse_foreign_config", "refuse_foreign_files"]

SERVER = "or serve it with software that runs it, and set VIDEOQA_SERVER_URL (docs/guide/models.md)"
_LLAVA = "llava-hf/llava-1.5-7b-hf"
_ONEVISION = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
_NEXT_VIDEO = "llava-hf/LLaVA-NeXT-Video-7B-hf"
TWINS: Mapping[str, str] = {
    "llava_llama": f"{_LLAVA}, or llava-hf/llava-v1.6-vicuna-7b-hf",
    "llavallamaforcausallm": f"{_LLAVA}, or llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava_mistral": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llavamistralforcausallm": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava_qwen": f"{_ONEVISION}, or llava-hf/LLaVA-NeXT-Video-7B-hf",
    "llavaqwenforcausallm": f"{_ONEVISION}, or llava-hf/LLaVA-NeXT-Video-7B-hf",
    "llavavidllamaforcausallm": _NEXT_VIDEO,
    "internvl_chat": "OpenGVLab/InternVL3-1B-hf and its larger sizes",
    "internvlchatmodel": "OpenGVLab/InternVL3-1B-hf and its larger sizes",
    "minicpmv": "openbmb/MiniCPM-V-4.6, its successor",
    "minicpmo": "openbmb/MiniCPM-V-4.6, its successor",
    "molmo": "allenai/Molmo2-8B, its successor",
    "ovis": "thisisiron/Ovis2-1B-hf and its larger sizes",
    "multi_modality": "deepseek-community/Janus-Pro-1B, or deepseek-community/deepseek-vl-1.3b-chat",
    "videollama3_qwen2": "lkhl/VideoLLaMA3-2B-Image-HF",
    "chatglm": "zai-org/GLM-4.1V-9B-Thinking, its successor",
}
"""Names on the hub of the same models, or of their successors, in transformers' format: by model type and by
architecture, in small letters. The names are those of transformers' own documentation and of llava-hf."""
_ORIGINAL_LLAVA = ("mm_vision_tower", "mm_projector_type")
"""Fields of the configuration of LLaVA's own code, whatever its model type."""


def refuse_foreign_config(name: str, stated: Mapping[str, Any]) -> None:
    """Raises ConfigurationError for a configuration that transformers has no code for.

    Arguments:
        stated: the contents of `config.json`.
    """
    if "quantization" in stated and "quantization_config" not in stated:
        raise ConfigurationError(
            f"{name} is in the format of MLX (quantization in config.json), expected transformers' format: take the "
            f"same model in that, {SERVER}",
            param="model",
        )
    quantization = stated.get("quantization_config")
    if quantization is not None and not (
        isinstance(quantization, dict)
        and (
            quantization.get("quant_method")
            or quantization.keys() & {"load_in_4bit", "load_in_8bit"}
        )
    ):
        raise ConfigurationError(
            f"config.json of {name} has a quantization_config without quant_method, expected the name of the method: "
            "download it again",
            param="model",
        )
    kind = stated.get("model_type")
    is_original = any(field in stated for field in _ORIGINAL_LLAVA)
    if isinstance(kind, str) and kind in CONFIG_MAPPING and not is_original:
        return
    what = repr(kind or ", ".join(_list_architectures(stated)) or "llava")
    twin = _find_twin(stated)
    if twin is not None or is_original:
        raise ConfigurationError(
            f"{name} is of type {what}, whose code transformers does not have: take the checkpoint in "
            f"transformers' format ({twin or _LLAVA}), {SERVER}",
            param="model",
        )
    if stated.get("auto_map"):
        raise ConfigurationError(
            f"{name} is of type {what} and brings code of its own (auto_map), which is not run here: take a "
            f"checkpoint of the same model in transformers' format, often named ...-hf, {SERVER}",
            param="model",
        )
    if kind is None:
        raise ConfigurationError(
            f"config.json of {name} names no model_type, expected the one of a model for images and text: "
            "download it again, or take the checkpoint in transformers' format",
            param="model",
        )
    writer = stated.get("transformers_version")
    written = f", written by transformers {writer}" if isinstance(writer, str) else ""
    raise ConfigurationError(
        f"{name} is of type {what}{written}, which transformers {transformers_version} does not know: upgrade "
        f"transformers if the type is newer, correct model_type in config.json if it is misspelt, {SERVER}",
        param="model",
    )


def _list_architectures(stated: Mapping[str, Any]) -> list[str]:
    named = stated.get("architectures")
    return [text for text in named if isinstance(text, str)] if isinstance(named, list) else []


def _find_twin(stated: Mapping[str, Any]) -> str | None:
    names = [str(stated.get("model_type")), *_list_architectures(stated)]
    return next((TWINS[name.lower()] for name in names if name.lower() in TWINS), None)


def refuse_foreign_files(name: str, files: Collection[str]) -> None:
    """Raises ConfigurationError for files among which there is no `config.json`, by what they are.

    Arguments:
        files: paths within the checkpoint.
    """
    raise ConfigurationError(f"{name} {_describe_files(files)}", param="model")


def _describe_files(files: Collection[str]) -> str:
    expected = "expected config.json, a processor and .safetensors, as transformers saves them"
    if not files:
        return f"is an empty folder, {expected}: check the name, or download the checkpoint again"
    if "adapter_config.json" in files:
        return (
            "is an adapter (adapter_config.json) without its model: name the model that it was trained from in "
            "VIDEOQA_MODEL, and this one in VIDEOQA_ADAPTER"
        )
    if "model_index.json" in files:
        return f"is a pipeline of diffusers, which makes pictures, {expected}: choose a model for image-text-to-text"
    kinds = {
        "params.json": "the format of the maker's own code (params.json)",
        ".pth": "the format of the maker's own code (.pth)",
        ".gguf": "GGUF, the format of llama.cpp",
        ".onnx": "ONNX",
        ".npz": "the format of MLX",
        ".tflite": "the format of LiteRT",
        ".engine": "an engine of TensorRT",
    }
    for suffix, kind in kinds.items():
        if any(file.endswith(suffix) for file in files):
            return (
                f"is in {kind}, {expected}: take the same model in transformers' format, often named ...-hf, "
                f"{SERVER}"
            )
    listed = ", ".join(sorted(files)[:4])
    return f"has no config.json (it has {listed}), {expected}: check the name, or download it again"
