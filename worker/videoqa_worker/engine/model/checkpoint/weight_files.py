"""Inspects the files of a checkpoint: the digest of a local one, and the headers of its weights.

Reads no weight but for the digest. Knows safetensors (https://huggingface.co/docs/safetensors) and the
index that transformers writes where there are several files.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open
from transformers.utils.hub import cached_file

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.small_files import read_object

__all__ = ["Weights", "digest_folder", "inspect_weights"]

SUFFIXES = frozenset({".json", ".jinja", ".model", ".safetensors", ".tiktoken", ".txt"})
WHOLE_BYTES = 64 * 2**20
SAMPLES = 64
SAMPLE_BYTES = 64 * 2**10
OTHER_FORMATS = frozenset({".bin", ".pt", ".pth", ".gguf", ".onnx", ".msgpack", ".h5", ".npz"})
"""Suffixes of weights that are not loaded: most can hold code."""
INTEGERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32"})
"""Types of quantized weights; positions, which old checkpoints hold, are I64."""
_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Weights:
    """Contents of a checkpoint's weight files, by their headers."""

    parameters: int
    """Parameters in the files that are on this machine."""
    missing_files: int
    """Files that would be downloaded from the hub."""


def inspect_weights(checkpoint: str, commit: str | None, *, quantized: bool = False) -> Weights:
    """Reads the headers of all weight files.

    Arguments:
        quantized: the configuration tells how the weights are quantized.

    Raises:
        ConfigurationError: a folder lacks a file, one is cut off or damaged, or has weights that are integers.
    """
    index = _find_file(checkpoint, _INDEX, commit)
    names = [_ONE] if index is None else _list_shards(index)
    files = {name: _find_file(checkpoint, name, commit) for name in names}
    missing = [name for name, path in files.items() if path is None]
    if missing and Path(checkpoint).is_dir():
        raise ConfigurationError(
            f"{checkpoint} {_describe_missing(Path(checkpoint), missing[0])}", param="model"
        )
    here = [path for path in files.values() if path is not None]
    return Weights(sum(_count_parameters(path, quantized) for path in here), len(missing))


def _list_shards(index: Path) -> list[str]:
    """Returns the names of the files that an index names.

    Raises:
        ConfigurationError: it names none, or one outside of the checkpoint.
    """
    shards = read_object(index).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else set()
    if not names or not all(isinstance(name, str) and _is_inside(name) for name in names):
        raise ConfigurationError(
            f"{index} names no weight files of its folder (weight_map): download it again",
            param="model",
        )
    return sorted(names)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _describe_missing(folder: Path, name: str) -> str:
    if (folder / name).is_symlink():
        return f"has a link {name} to a file that is not there: download it again"
    others = sorted(
        path.name for path in folder.iterdir() if path.suffix in OTHER_FORMATS and path.is_file()
    )
    if name == _ONE and others:
        return (
            f"has no {name}, and weights in another format ({others[0]}), expected .safetensors: convert them "
            "(load and save the model with transformers), or take another revision"
        )
    named = f", which {_INDEX} names" if name != _ONE else ""
    return f"has no {name}{named}, expected the weights as .safetensors: download it again, or convert them"


def _find_file(checkpoint: str, name: str, commit: str | None) -> Path | None:
    found = cached_file(
        checkpoint,
        name,
        revision=commit,
        local_files_only=name != _INDEX,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def _count_parameters(path: Path, quantized: bool) -> int:
    total = 0
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                weight = file.get_slice(name)
                shape = weight.get_shape()
                if weight.get_dtype() in INTEGERS and len(shape) > 1 and not quantized:
                    raise ConfigurationError(
                        f"{path} has quantized weights ({name} in {weight.get_dtype()}), and config.json does not "
                        "tell how (quantization_config): take the checkpoint in full precision, or as transformers "
                        "saves quantized ones",
                        param="model",
                    )
                total += math.prod(shape)
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(
            f"{path} {_describe_damage(path, error)}", param="model"
        ) from error
    return total


def _describe_damage(path: Path, error: Exception) -> str:
    if path.is_dir():
        return "is a folder, expected a file: download it again"
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except OSError as problem:
        return f"cannot be read ({problem.strerror}): give the worker's user the right to"
    if begin.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the weights: run `git lfs pull`, or download it again"
    return f"is cut off or damaged ({error}): download it again"


def digest_folder(folder: Path) -> str:
    """Returns `sha256:...` over everything that decides an answer: configuration, tokenizer, weights.

    It names the exact files of a local checkpoint, as a commit does for one on the hub. Files above
    64 MiB count by size, first bytes (a safetensors header) and 64 samples: a digest of 14 GB would
    hold up the start, and a fine-tune changes all of a weight file.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            _update(digest, path)
    return f"sha256:{digest.hexdigest()}"


def _update(digest: hashlib._Hash, path: Path) -> None:
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        if size_bytes <= WHOLE_BYTES:
            digest.update(file.read())
            return
        for n in range(SAMPLES):
            file.seek(n * (size_bytes - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
