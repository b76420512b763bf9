"""The files with a checkpoint's weights, by their headers: how much they hold, and whether all are whole.

Reads no weight. Knows safetensors (https://huggingface.co/docs/safetensors) and the index that
transformers writes where there are several files.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from transformers.utils.hub import cached_file

from videoqa.errors import ConfigurationError

__all__ = ["Weights", "weights_of"]

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Weights:
    """Of all files that are here."""

    parameters: int
    missing_files: int
    """That are to be downloaded from the hub."""


def weights_of(checkpoint: str, commit: str | None) -> Weights:
    """
    Raises:
        ConfigurationError: a folder lacks a file. SafetensorError: a file is cut off or damaged.
    """
    index = _found(checkpoint, _INDEX, commit)
    names = [_ONE] if index is None else sorted(set(_shards(index)))
    files = {name: _found(checkpoint, name, commit) for name in names}
    missing = [name for name, path in files.items() if path is None]
    if missing and Path(checkpoint).is_dir():
        raise ConfigurationError(
            f"{checkpoint} has no {missing[0]}; the weights must be .safetensors: download it again, "
            "or convert them",
            param="model",
        )
    return Weights(sum(map(_parameters, filter(None, files.values()))), len(missing))


def _shards(index: Path) -> list[str]:
    named: dict[str, str] = json.loads(index.read_text())["weight_map"]
    return list(named.values())


def _found(checkpoint: str, name: str, commit: str | None) -> Path | None:
    found = cached_file(
        checkpoint,
        name,
        revision=commit,
        local_files_only=name != _INDEX,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def _parameters(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
