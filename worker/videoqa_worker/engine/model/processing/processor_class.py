"""Finds the class of a checkpoint's processor: the one that its files name, as transformers does.

A model type does not tell: checkpoints of type `llava` come with the processors of LLaVA, LLaVA-NeXT and
Pixtral, whose prompts differ. Files without a name are old; their type decides, or the
vision encoder where a type has several.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.processing_utils import ProcessorMixin
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import DummyObject

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.small_files import read_object
from videoqa_worker.engine.model.processing.pixtral import PixtralProcessor

__all__ = ["find_processor_class", "has_video_token"]

_FILES = (
    ("processor_config.json",),
    ("preprocessor_config.json", "video_preprocessor_config.json"),
    ("tokenizer_config.json",),
)
"""Files that name a processor, in the order of transformers; the second of a pair counts without the first."""


def find_processor_class(checkpoint: str, config: Any, hub: dict[str, Any]) -> type[Any]:
    """Returns the class of a checkpoint's processor.

    Raises:
        ConfigurationError: transformers has none for this checkpoint.
    """
    for name in _list_names(checkpoint, config, hub):
        if name == PixtralProcessor.__name__:
            return PixtralProcessor
        found: Any = processor_class_from_name(name)
        if found is not None:
            return _check_class(found, name, checkpoint)
    return _find_by_type(config)


def _check_class(found: Any, name: str, checkpoint: str) -> type[Any]:
    """Returns a class found by its name: transformers looks the name up among everything that it has.

    Raises:
        ConfigurationError: it is no processor.
    """
    is_processor = isinstance(found, type) and issubclass(found, ProcessorMixin)
    if (is_processor and found is not ProcessorMixin) or isinstance(found, DummyObject):
        return found  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"got processor_class={name!r:.80} in the files of {checkpoint}, which is no processor of transformers, "
        "expected one for images and text: correct processor_config.json, or download it again",
        param="model",
    )


def _list_names(checkpoint: str, config: Any, hub: dict[str, Any]) -> Iterator[str]:
    """Yields the first name that the files give, then that of `config.json`."""
    for alternatives in _FILES:
        stated = next(filter(None, (_read(checkpoint, file, hub) for file in alternatives)), {})
        name = stated.get("processor_class")
        if isinstance(name, str):
            yield name
            return
    name = getattr(config, "processor_class", None)
    if isinstance(name, str):
        yield name


def _read(checkpoint: str, file: str, hub: dict[str, Any]) -> dict[str, Any]:
    """Returns the contents of a JSON file of a checkpoint; empty if there is none."""
    options = {name: value for name, value in hub.items() if name != "trust_remote_code"}
    path = cached_file(
        checkpoint,
        file,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **options,
    )
    return {} if path is None else read_object(Path(path))


def _find_by_type(config: Any) -> type[Any]:
    vision = getattr(config, "vision_config", None)
    if getattr(vision, "model_type", None) == "pixtral" and config.model_type == "llava":
        return PixtralProcessor
    try:
        found: Any = PROCESSOR_MAPPING[type(config)]
    except KeyError as error:
        raise ConfigurationError(
            f"got a {config.model_type} model, for which transformers has no processor of images "
            "and text; choose a checkpoint for image-text-to-text",
            param="model",
        ) from error
    return PixtralProcessor if found.__name__ == PixtralProcessor.__name__ else found


def has_video_token(config: Any) -> bool:
    """Returns True if the model of this configuration takes whole videos."""
    names = ("video_token_id", "video_token_index")
    return any(getattr(config, name, None) is not None for name in names)
