"""Loads a checkpoint's processor without torchvision, with pixels by PIL or by `fast_resize`.

Images: transformers has a PIL backend for every family here; it is chosen by name, so
that pixels do not depend on what else is installed. Videos of the LLaVA family: see `video_processor`.
These parts are the reference; `fast_resize` makes fast ones of them. Other models' video parts are
transformers' own, which need torchvision: without it their videos are asked about as images.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
)
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils.import_utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model.checkpoint.loading_errors import name_part
from videoqa_worker.engine.model.processing.fast_resize import use_fast_pixels
from videoqa_worker.engine.model.processing.pixtral import PixtralProcessor
from videoqa_worker.engine.model.processing.processor_class import (
    find_processor_class,
    has_video_token,
)
from videoqa_worker.engine.model.processing.video_processor import VIDEO_SIZES, load_video_processor

__all__ = ["PROCESSORS", "VIDEO_PROCESSORS", "load_processor"]

PROCESSORS = (
    "LlavaProcessor",
    "LlavaNextProcessor",
    "LlavaNextVideoProcessor",
    "LlavaOnevisionProcessor",
    "VideoLlavaProcessor",
)
"""Processors of the LLaVA family, for which the fast pixels were checked."""
VIDEO_PROCESSORS = (
    "Ernie4_5_VLMoeProcessor",
    "Exaone4_5_Processor",
    "Gemma4Processor",
    "Gemma4UnifiedProcessor",
    "Glm46VProcessor",
    "Glm4vProcessor",
    "HyperCLOVAXVisionV2Processor",
    "InternVLProcessor",
    "Lfm3VlProcessor",
    "MiniCPMV4_6Processor",
    "Molmo2Processor",
    "PerceptionLMProcessor",
    "Qwen2VLProcessor",
    "Qwen2_5_VLProcessor",
    "Qwen3VLProcessor",
    "SmolVLMProcessor",
    "VideoLlama3Processor",
)
"""Other processors whose prompts with videos are compared with their own in the tests (`test_engine_videos.py`).

The rest of transformers' get images: Kimi-K2.5's own `generate` fails on a video of several frames (5.23), and a part
that samples again, or takes other times than it is told, would be silently wrong.
"""


FILES = {
    "tokenizer": "tokenizer.json, tokenizer_config.json, special_tokens_map.json or added_tokens.json",
    "image_processor": "preprocessor_config.json or processor_config.json",
    "video_processor": "video_preprocessor_config.json or preprocessor_config.json",
    "feature_extractor": "processor_config.json or preprocessor_config.json",
}
"""Files of the parts of a processor."""
_OWN_FILES = "processor_config.json, chat_template.json, chat_template.jinja or config.json"


_NO_TORCHVISION = (
    "it needs torchvision: pip install './worker[models]' with the version of your torch"
)


class _UnequalVideos:
    """Mixed into the processors of the LLaVA family: upstream stacks videos, which fails when they differ in T."""

    skip_tensor_conversion = ("video_metadata", "text_replacement_offsets", "pixel_values_videos")


class _WithoutTorchvision:
    """Mixed into a processor class; replaces what upstream does only with torchvision."""

    video_obstacle: str | None = None
    """The reason for which the processor's own video part is not used; None: it is, or there is none."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        """Accepts our video processor: without torchvision upstream fails to find the class to check against."""
        if name == "video_processor" and isinstance(argument, VideoProcessorMixin | None):
            return VideoProcessorMixin
        return super().check_argument_for_proper_class(name, argument)  # type: ignore[misc]

    def apply_chat_template(self, *args: Any, **settings: Any) -> Any:
        """Renders a conversation; SmolVLM's own method asks its video processor first, which is none here."""
        own: Any = super()
        whole = getattr(self, "video_processor", self) is not None
        plain = partial(ProcessorMixin.apply_chat_template, self)  # type: ignore[arg-type]
        render = own.apply_chat_template if whole else plain
        return render(*args, **settings)


def load_processor(
    checkpoint: str, config: Any, pixels: Literal["fast", "reference"] = "fast", **hub: Any
) -> Any:
    """Loads the processor that a checkpoint names; without a video part where that cannot be loaded.

    Arguments:
        pixels: `fast` where `use_fast_pixels` can, or `reference` for all.

    Raises:
        ConfigurationError: transformers has no processor for this checkpoint, or it needs more than images.
    """
    family = find_processor_class(checkpoint, config, hub)
    bases: tuple[type[Any], ...] = (_WithoutTorchvision, family)
    if family.__name__ in PROCESSORS:
        bases = (_UnequalVideos, *bases)
    kind: Any = type(family.__name__, bases, {})
    with name_part(checkpoint, _OWN_FILES):
        settings, _ = kind.get_processor_dict(checkpoint, **hub)
    loaders = {
        "tokenizer": lambda: _load_tokenizer(family, checkpoint, hub),
        "image_processor": lambda: AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            checkpoint, backend="pil", **hub
        ),
        "video_processor": lambda: _load_video_part(family.__name__, checkpoint, config, hub),
        # For sound, which no prompt here has; Gemma 4's processor is not made without.
        "feature_extractor": lambda: AutoFeatureExtractor.from_pretrained(checkpoint, **hub),  # type: ignore[no-untyped-call]
    }
    wanted = kind.get_attributes()
    sees = {"image_processor", "video_processor"} & set(wanted)
    if not sees or not set(wanted) <= set(loaders):
        raise ConfigurationError(
            f"got a {config.model_type} model, whose processor needs {sorted(wanted)}, expected one "
            "for images and text",
            param="model",
        )
    parts = []
    for name in wanted:
        with name_part(checkpoint, FILES[name]):
            parts.append(loaders[name]())
    with name_part(checkpoint, _OWN_FILES):
        try:
            processor = kind.from_args_and_dict(parts, settings)
        except AttributeError as error:  # MiniCPM-V's reads settings of its video part
            if "video_processor" in wanted and not is_torchvision_available():
                raise ImportError("its processor needs torchvision") from error
            raise
        _fill_in(processor, config)
    if "video_processor" in wanted and family.__name__ not in PROCESSORS:
        processor.video_obstacle = _find_video_obstacle(family.__name__)
    if family.__name__ in PROCESSORS and pixels == "fast":
        with name_part(checkpoint, FILES["image_processor"]):
            use_fast_pixels(processor)
    return processor


def _find_video_obstacle(family: str) -> str | None:
    """Returns the reason for which the video part of this class of processors is not used, or None."""
    if family not in VIDEO_PROCESSORS:
        return f"the prompts of {family} with videos were not compared with its own"
    return None if is_torchvision_available() else _NO_TORCHVISION


def _load_video_part(family: str, checkpoint: str, config: Any, hub: dict[str, Any]) -> Any:
    """Returns the video part of a processor, or None: the model takes no videos, or torchvision is not installed."""
    if family in PROCESSORS:
        takes_videos = family in VIDEO_SIZES and has_video_token(config)
        return load_video_processor(checkpoint, family, hub) if takes_videos else None
    if not is_torchvision_available():
        return None
    return AutoVideoProcessor.from_pretrained(checkpoint, **hub)  # type: ignore[no-untyped-call]


def _load_tokenizer(family: type[Any], checkpoint: str, hub: dict[str, Any]) -> Any:
    """Loads the tokenizer; Pixtral's files name a class that would cut the text otherwise, as transformers notes."""
    loader: Any = TokenizersBackend if family is PixtralProcessor else AutoTokenizer
    return loader.from_pretrained(checkpoint, **hub)


def _fill_in(processor: Any, config: Any) -> None:
    """Fills in what old checkpoints leave to the model's configuration: it decides an image's tokens."""
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = vision.patch_size
        # CLIP puts a class token before the patches; "default" then drops it again.
        processor.num_additional_image_tokens = int("clip" in vision.model_type)
    if getattr(processor, "vision_feature_select_strategy", "") is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if getattr(processor, "num_image_tokens", 0) is None:
        processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
