"""Checks the small files of a checkpoint before a library reads them, and names the one that is wrong.

Libraries raise errors of a dozen kinds about a damaged file, many without its name, and some go on without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.utils.hub import cached_file

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.extras import describe_packages
from videoqa_worker.engine.model.checkpoint.foreign import refuse_foreign_files
from videoqa_worker.engine.model.checkpoint.sizes import check_sizes

__all__ = ["check_small_files", "list_files", "open_folder", "read_object"]

CONFIG = "config.json"
OBJECTS = (
    CONFIG,
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "model.safetensors.index.json",
    "adapter_config.json",
)
"""Files that hold one JSON object each, if they are there."""
SIZED = {CONFIG, "processor_config.json", "preprocessor_config.json"}
"""Files with numbers that time and memory grow with."""
TOKENIZERS = {
    "tokenizer.model": "sentencepiece",
    ".tiktoken": "tiktoken",
    "tekken.json": "mistral-common",
}
"""Packages that read a tokenizer, by the name of its file."""


def open_folder(name: str, commit: str | None) -> Path:
    """Returns the folder of a checkpoint: its own, or that of its commit in the hub's cache.

    Raises:
        ConfigurationError: there is no `config.json`; the files tell what it is instead.
    """
    folder = Path(name)
    if folder.is_dir():
        try:
            files = list_files(folder)
        except OSError as error:
            raise ConfigurationError(
                f"{name} cannot be read ({error.strerror}); give the worker's user the right to",
                param="model",
            ) from error
        if CONFIG not in files and not folder.joinpath(CONFIG).is_symlink():
            refuse_foreign_files(name, files)
        return folder
    found = cached_file(
        name, CONFIG, revision=commit or "main", _raise_exceptions_for_missing_entries=False
    )
    if found is None:
        refuse_foreign_files(name, HfApi().list_repo_files(name, revision=commit))
    return Path(str(found)).parent


def list_files(folder: Path) -> set[str]:
    """Returns the names in a folder, and those one level below it."""
    top = {path.name for path in folder.iterdir()}
    return top | {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*")}


def check_small_files(folder: Path) -> Mapping[str, Any]:
    """Reads all JSON files that are there; returns the contents of `config.json`.

    Raises:
        ConfigurationError: one cannot be read, is no JSON, or no object.
    """
    found = {name: read_object(folder / name) for name in OBJECTS if _exists(folder / name)}
    for name in SIZED & found.keys():
        check_sizes(folder / name, found[name])
    _check_tokenizer(folder)
    return found[CONFIG]


def _check_tokenizer(folder: Path) -> None:
    """Raises ConfigurationError for a tokenizer in a format whose package is not installed."""
    files = {path.name for path in folder.iterdir()}
    if "tokenizer.json" in files:
        return
    for suffix, package in TOKENIZERS.items():
        if any(file.endswith(suffix) for file in files) and (
            missing := describe_packages([package])
        ):
            raise ConfigurationError(
                f"{folder} has no tokenizer.json, and to convert its own tokenizer {missing}",
                param="model",
            )


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def read_object(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        ConfigurationError: it cannot be read, is no JSON, or no object.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(
            f"{path} cannot be read (it is no file), expected a JSON file: download it again",
            param="model",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}): {_advise(path)}", param="model"
        ) from error
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ConfigurationError(
            f"{path} begins with a byte order mark, expected plain UTF-8: save it without one",
            param="model",
        )
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is not valid JSON ({error}): download it again", param="model"
        ) from error
    if not isinstance(found, dict):
        raise ConfigurationError(
            f"{path} holds {type(found).__name__}, expected a JSON object: download it again",
            param="model",
        )
    return found


def _advise(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "it is a link to a file that is not there; download the checkpoint again"
    return "give the worker's user the right to, or download it again"
