"""Inspects the files of a checkpoint: the digest of a local one, and the headers of its weights.

Reads no weight but for the digest. Knows safetensors (https://huggingface.co/docs/safetensors) and the
index that transformers writes where there are several files.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from transformers.utils.hub import cached_file

from videoqa.errors import ConfigurationError

__all__ = ["Weights", "digest_folder", "inspect_weights"]

SUFFIXES = frozenset({".json", ".jinja", ".model", ".safetensors"})
WHOLE_BYTES = 64 * 2**20
SAMPLES = 64
SAMPLE_BYTES = 64 * 2**10
_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Weights:
    """Contents of a checkpoint's weight files, by their headers."""

    parameters: int
    """Parameters in the files that are on this machine."""
    missing_files: int
    """Files that would be downloaded from the hub."""


def inspect_weights(checkpoint: str, commit: str | None) -> Weights:
    """Reads the headers of all weight files.

    Raises:
        ConfigurationError: a folder lacks a file. SafetensorError: a file is cut off or damaged.
    """
    index = _find_file(checkpoint, _INDEX, commit)
    names = [_ONE] if index is None else sorted(set(_read_index(index)))
    files = {name: _find_file(checkpoint, name, commit) for name in names}
    missing = [name for name, path in files.items() if path is None]
    if missing and Path(checkpoint).is_dir():
        raise ConfigurationError(
            f"{checkpoint} has no {missing[0]}; the weights must be .safetensors: download it again, "
            "or convert them",
            param="model",
        )
    return Weights(sum(map(_count_parameters, filter(None, files.values()))), len(missing))


def _read_index(index: Path) -> list[str]:
    files: dict[str, str] = json.loads(index.read_text())["weight_map"]
    return list(files.values())


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


def _count_parameters(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


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
