"""Loads a checkpoint's processor without torchvision, with pixels by PIL or by `fast_resize`.

Images: transformers has a PIL backend for every family here; it is chosen by name, so
that pixels do not depend on what else is installed. Videos: see `video_processor`. These
parts are the reference; `fast_resize` makes fast ones of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    LlavaNextProcessor,
    LlavaNextVideoProcessor,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    VideoLlavaProcessor,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.video_processing_utils import VideoProcessorMixin

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.fast_resize import use_fast_pixels
from videoqa_worker.engine.model.video_processor import load_video_processor

__all__ = ["PROCESSORS", "load_processor"]

PROCESSORS: Mapping[str, Any] = {
    "llava": LlavaProcessor,
    "llava_next": LlavaNextProcessor,
    "llava_next_video": LlavaNextVideoProcessor,
    "llava_onevision": LlavaOnevisionProcessor,
    "video_llava": VideoLlavaProcessor,
}
"""Model types of the LLaVA family; those of any other `AutoModelForImageTextToText` are looked up."""


class _WithoutTorchvision:
    """Mixed into a family's processor class; replaces what upstream does only with torchvision."""

    # Upstream stacks the videos of a call into one tensor, which fails when they differ in T.
    skip_tensor_conversion = ("video_metadata", "text_replacement_offsets", "pixel_values_videos")

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        """Accepts our video processor: without torchvision upstream fails to find the class to check against."""
        if name == "video_processor" and isinstance(argument, VideoProcessorMixin | None):
            return VideoProcessorMixin
        return super().check_argument_for_proper_class(name, argument)  # type: ignore[misc]


def load_processor(
    checkpoint: str, config: Any, pixels: Literal["fast", "reference"] = "fast", **hub: Any
) -> Any:
    """Loads the processor of a checkpoint, by its model type.

    Outside of the LLaVA family it has no video processor: each frame is an image.

    Arguments:
        pixels: `fast` where `use_fast_pixels` can, or `reference` for all.

    Raises:
        ConfigurationError: transformers has no processor for this type, or it needs more than images.
    """
    llava = config.model_type in PROCESSORS
    family = PROCESSORS[config.model_type] if llava else _find_other_family(config)
    kind: Any = type(family.__name__, (_WithoutTorchvision, family), {})
    settings, _ = kind.get_processor_dict(checkpoint, **hub)
    loaders = {
        "tokenizer": lambda: AutoTokenizer.from_pretrained(checkpoint, **hub),
        "image_processor": lambda: AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            checkpoint, backend="pil", **hub
        ),
        "video_processor": lambda: (
            load_video_processor(checkpoint, config.model_type, hub) if llava else None
        ),
    }
    wanted = kind.get_attributes()
    if not set(wanted) <= set(loaders):
        raise ConfigurationError(
            f"got a {config.model_type} model, whose processor needs {sorted(wanted)}, expected one "
            "for images and text",
            param="model",
        )
    parts = [loaders[name]() for name in wanted]  # type: ignore[no-untyped-call]
    processor = kind.from_args_and_dict(parts, settings)
    if llava:
        _fill_in(processor, config)
    if llava and pixels == "fast":
        use_fast_pixels(processor)
    return processor


def _find_other_family(config: Any) -> Any:
    try:
        return PROCESSOR_MAPPING[type(config)]
    except KeyError as error:
        raise ConfigurationError(
            f"got a {config.model_type} model, for which transformers has no processor of images "
            "and text; choose a checkpoint for image-text-to-text",
            param="model",
        ) from error


def _fill_in(processor: Any, config: Any) -> None:
    """Fills in what old checkpoints leave to the model's configuration: it decides an image's tokens."""
    vision = config.vision_config
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = vision.patch_size
        # CLIP puts a class token before the patches; "default" then drops it again.
        processor.num_additional_image_tokens = int("clip" in vision.model_type)
    if getattr(processor, "vision_feature_select_strategy", "") is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if getattr(processor, "num_image_tokens", 0) is None:
        processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
