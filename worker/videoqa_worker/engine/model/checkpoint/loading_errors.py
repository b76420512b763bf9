"""Translates the errors of transformers, the hub and the allocator while a model loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.extras import describe_missing_package

__all__ = ["check_name", "name_part", "translate_errors"]

_SCHEMES = ("http://", "https://", "file://", "hf://", "s3://")
HINTS = {
    "trust_remote_code": "code of a checkpoint's own is not run here: take one in transformers' format, often named "
    "...-hf, or set VIDEOQA_SERVER_URL",
    "custom code": "code of a checkpoint's own is not run here: take one in transformers' format, often named "
    "...-hf, or set VIDEOQA_SERVER_URL",
    "couldn't connect": "check the network, HF_HUB_OFFLINE and HF_HOME, or download it before",
    "offline mode": "unset HF_HUB_OFFLINE, or download the checkpoint before",
    "not a local folder": "check the name; a private checkpoint needs HF_TOKEN",
    "deserializing": "the weights are cut off or damaged: download them again",
    "safetensors": "the weights must be .safetensors: convert them, or take another revision",
    "backend tokenizer": "expected tokenizer.json beside config.json",
    "repository not found": "check the name; a private checkpoint needs HF_TOKEN",
    "gated": "accept its licence on the hub and set HF_TOKEN",
    "load image processor": "expected preprocessor_config.json beside config.json: download it again",
    "image processor": "preprocessor_config.json names one that transformers does not have: download it again, or "
    "upgrade transformers",
    "ignore_mismatched_sizes": "the weights have other shapes than config.json asks for: download both again",
    "repo id must": "expected an id on the hub such as llava-hf/llava-1.5-7b-hf, or a folder",
    "repo_name": "expected an id on the hub such as llava-hf/llava-1.5-7b-hf, or a folder",
    "permission denied": "give the worker's user the right to read it",
}
"""Next steps by what an error says."""
_CODE_ERRORS = (
    ArithmeticError,
    AttributeError,
    KeyError,
    IndexError,
    RecursionError,
    TypeError,
    UnicodeDecodeError,
)
_NEXT_STEP = "download the checkpoint again, or take another revision"
_MOST_CHARACTERS = 250


def check_name(name: str) -> None:
    """Raises ConfigurationError for a name that is neither a folder nor an id on the hub."""
    path = Path(name)
    if path.is_dir():
        return
    if name.startswith(_SCHEMES):
        raise ConfigurationError(
            f"got model={name!r}, expected an id on the hub such as llava-hf/llava-1.5-7b-hf, or a folder",
            param="model",
        )
    if path.is_file():
        raise ConfigurationError(
            f"got model={name!r}, which is a file, expected the folder that has config.json and the weights",
            param="model",
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ConfigurationError(
            f"got model={name!r}, expected a folder with config.json: there is none",
            param="model",
        )


@contextmanager
def translate_errors(name: str) -> Iterator[None]:
    """Raises foreign errors within the block as ConfigurationError.

    Arguments:
        name: the checkpoint that is loaded.
    """
    try:
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


@contextmanager
def name_part(name: str, files: str) -> Iterator[None]:
    """Raises errors of transformers' code within the block as ConfigurationError that names the files.

    Such errors come from values of a wrong type, and say nothing of where they stand. Errors with words for users
    pass.

    Arguments:
        name: the checkpoint.
        files: names of the files that the block reads.
    """
    try:
        yield
    except _CODE_ERRORS as error:
        if describe_missing_package(error):
            raise
        if isinstance(error, UnicodeError):
            reason = f"{error.__class__.__name__}: {error.reason}"
        else:
            reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"cannot load {name}: transformers fails on a value in {files}, which is missing or of a wrong type "
            f"({reason[:_MOST_CHARACTERS]}); correct it, or download these files again",
            param="model",
        ) from error


def _describe(error: Exception) -> str:
    """Returns the first lines of an error, and the next step."""
    text = str(error).strip()
    if (missing := describe_missing_package(error)) and "backend tokenizer" not in text:
        return missing
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # The first line of a validation error is a heading.
    first = " ".join(lines[: 2 if lines and lines[0].startswith("Validation error") else 1])
    first = first[:_MOST_CHARACTERS].rstrip(".: ")
    if not isinstance(error, OSError | ValueError | RuntimeError | ImportError):
        first = f"{type(error).__name__}: {first}" if first else type(error).__name__
    hint = next((hint for sign, hint in HINTS.items() if sign in text.lower()), _NEXT_STEP)
    return f"{first or type(error).__name__}; {hint}"
