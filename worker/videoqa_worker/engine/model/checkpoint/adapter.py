"""Finds a LoRA adapter, and merges it into its model at the start.

Merged weights cost nothing while answering, and run with continuous batching as those of any checkpoint do. peft
builds and merges it: LoRA, rsLoRA and DoRA, and the whole modules that were trained beside them.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils.hub import cached_file, extract_commit_hash

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.loading_errors import translate_errors
from videoqa_worker.engine.model.checkpoint.small_files import read_object
from videoqa_worker.engine.model.checkpoint.weight_files import digest_folder
from videoqa_worker.settings import EngineConfig

__all__ = ["Adapter", "check_adapter", "find_adapter", "merge_adapter"]

NONE = "none"
"""Value of the setting for a model that is served without the adapter that lies beside it."""
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_VARIANT = re.compile(r"(-unsloth)?(-bnb)?-(4|8)bit$|-gptq$|-awq$|-hf$", re.IGNORECASE)
"""Suffix of a name on the hub whose weights are another's in another form."""


@dataclass(frozen=True)
class Adapter:
    """An adapter whose configuration and file are checked."""

    name: str
    folder: Path
    stated: Mapping[str, Any]
    """The contents of `adapter_config.json`."""
    digest: str
    """The hub's commit, or `sha256:...` of a local folder."""


def find_adapter(config: EngineConfig, commit: str | None) -> Adapter | None:
    """Returns the adapter that the settings name.

    Arguments:
        commit: the hub's commit of the model; None for a folder.

    Raises:
        ConfigurationError: it is not there, no LoRA, of another model, or lies beside the model without being named.
    """
    if config.adapter is None:
        _refuse_unnamed(config.checkpoint, commit)
    if config.adapter in (None, NONE):
        return None
    name = str(config.adapter)
    if importlib.util.find_spec("peft") is None:
        raise _make_error(
            f"got adapter={name!r} without peft; pip install './worker[adapters]' in your clone, or leave the "
            "adapter out"
        )
    if config.quantization:
        raise _make_error(
            f"got adapter={name!r} with quantization={config.quantization!r}, expected one of them: an adapter is "
            "merged into weights in full precision; merge it beforehand, or leave the quantization out"
        )
    adapter = _open(name, config.adapter_revision)
    _check_kind(adapter)
    _check_base(adapter, config.checkpoint)
    return adapter


def _make_error(text: str) -> ConfigurationError:
    return ConfigurationError(text, param="adapter")


def _refuse_unnamed(checkpoint: str, commit: str | None) -> None:
    if _find(checkpoint, _CONFIG, commit, is_asked=False) is not None:
        raise _make_error(
            f"an adapter lies beside the model {checkpoint} ({_CONFIG}), and no setting tells if it counts; set "
            f"VIDEOQA_ADAPTER={checkpoint} to merge it, or VIDEOQA_ADAPTER={NONE} to leave it out"
        )


def _find(name: str, file: str, revision: str | None, *, is_asked: bool = True) -> Path | None:
    """Returns a file of a folder or a repository; None if there is none, or for one not asked for, no hub."""
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.exists() or path.is_symlink() else None
    found = cached_file(
        name,
        file,
        revision=revision or "main",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=is_asked,
    )
    return Path(str(found)) if found else None


def _open(name: str, revision: str | None) -> Adapter:
    with _translate_errors(name):
        if not Path(name).is_dir() and not _HUB_ID.fullmatch(name):
            raise _make_error(
                f"got adapter={name!r}, expected a folder with {_CONFIG}, or an id on the hub: there is none"
            )
        config = _find(name, _CONFIG, revision)
        if config is None:
            raise _make_error(f"{name} has no {_CONFIG}, expected an adapter as peft saves it")
        weights = _find(name, _WEIGHTS, revision)
        if weights is None:
            raise _make_error(
                f"{name} has no {_WEIGHTS}, expected the adapter's weights as safetensors: save it again with peft"
            )
        commit = None if Path(name).is_dir() else extract_commit_hash(str(config), None)
        with safe_open(weights, framework="pt"):
            pass  # reads the header: a file that is cut off is found before the model is loaded
        return Adapter(
            name, config.parent, read_object(config), commit or digest_folder(config.parent)
        )


def _check_kind(adapter: Adapter) -> None:
    from peft import LoraConfig, __version__

    kind = adapter.stated.get("peft_type")
    if kind != "LORA":
        raise _make_error(
            f"{adapter.name} is an adapter of type {kind!r}, expected LORA (with or without DoRA, rsLoRA): merge it "
            "beforehand, and set VIDEOQA_MODEL to the merged model"
        )
    known = {field.name for field in fields(LoraConfig)}
    unknown = [name for name, value in adapter.stated.items() if value and name not in known]
    if unknown:
        raise _make_error(
            f"{_CONFIG} of {adapter.name} has {', '.join(sorted(unknown)[:3])}, which peft {__version__} does not "
            "know and would leave out: upgrade peft"
        )


def _check_base(adapter: Adapter, model: str) -> None:
    """Compares the names of two models on the hub; what a local folder holds is told by shapes alone."""
    base = adapter.stated.get("base_model_name_or_path")
    names = [base, model]
    if not all(isinstance(name, str) and _HUB_ID.fullmatch(name) for name in names):
        return
    if any(Path(str(name)).is_dir() for name in names):
        return
    short, other = (_shorten(str(name)) for name in names)
    if short != other:
        raise _make_error(
            f"the adapter {adapter.name} was trained on {base}, got model={model!r}: set VIDEOQA_MODEL={base}, or "
            f"correct base_model_name_or_path in {_CONFIG} if the two have the same weights"
        )


def _shorten(name: str) -> str:
    """Returns a model's name without its owner, and without what tells only its form."""
    short = name.rpartition("/")[2].lower()
    while (shorter := _VARIANT.sub("", short)) != short:
        short = shorter
    return short


def merge_adapter(model: Any, adapter: Adapter) -> Any:
    """Returns the model with the adapter's weights in its own.

    Raises:
        ConfigurationError: the adapter does not fit the model.
    """
    with _translate_errors(adapter.name):
        return _attach(model, adapter).merge_and_unload(safe_merge=True).eval()


def check_adapter(model: Any, adapter: Adapter) -> None:
    """Checks that the adapter's weights fit a model on the `meta` device, which is of no use afterwards.

    Raises:
        ConfigurationError: the adapter does not fit the model.
    """
    with _translate_errors(adapter.name):
        _attach(model, adapter)


def _attach(model: Any, adapter: Adapter) -> Any:
    """Returns the model as peft wraps it, with the adapter's weights beside its own."""
    from peft import LoraConfig, PeftModel

    stated = LoraConfig.from_pretrained(str(adapter.folder))
    stated.inference_mode = True
    device = "cpu" if model.device.type == "meta" else str(model.device)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of each weight that is copied to `meta`, and of peft about transformers
        wrapped = PeftModel(model, stated)
        report = wrapped.load_adapter(
            str(adapter.folder),
            "default",
            torch_device=device,
            key_mapping=getattr(model, "_checkpoint_conversion_mapping", {}),
        )
    for problem, keys in (
        ("lacks", report.missing_keys),
        ("has, and the model lacks,", report.unexpected_keys),
    ):
        if keys:
            raise _make_error(
                f"the adapter {adapter.name} {problem} {len(keys)} weights ({sorted(keys)[0]}, ...): it was "
                "trained on another model; set VIDEOQA_MODEL to that one"
            )
    return wrapped


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Raises foreign errors within the block as ConfigurationError about the adapter."""
    try:
        with translate_errors(name):
            yield
    except ConfigurationError as error:
        text = error.message
        if "size mismatch" in str(error.__cause__):
            text = (
                f"the adapter {name} has weights of other shapes than this model: {_find_mismatch(error.__cause__)}; "
                "it was trained on another model, or on one with more tokens: set VIDEOQA_MODEL to that one, or "
                "download the adapter again"
            )
        elif "Target modules" in str(error.__cause__):
            text = (
                f"the adapter {name} changes modules that this model does not have: {error.__cause__}"[
                    :400
                ]
                + "; set VIDEOQA_MODEL to the model that it was trained on"
            )
        elif "NaNs detected" in str(error.__cause__):
            text = f"the adapter {name} has NaN or infinite weights: train or download it again"
        raise _make_error(text) from error


def _find_mismatch(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    return lines[0].removeprefix("size mismatch for ")[:300] if lines else str(error)[:300]
