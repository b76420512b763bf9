"""A checkpoint's processor, put together without torchvision.

Images: transformers has a PIL backend for every family here; it is asked for by name, so
that pixels do not depend on what else is installed. Videos: transformers resizes them with
torchvision only, so `PilVideoProcessor` does the steps of the checkpoint's own
configuration (resize, crop, rescale, normalise) frame by frame with the same PIL backend.
The families' video processors do nothing else: against them, with torchvision 0.28, the
shapes were equal and pixels differed by at most 2 of 255, on average by 0.002 to 0.006.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    LlavaNextProcessor,
    LlavaNextVideoProcessor,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    VideoLlavaProcessor,
)
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import make_batched_videos

__all__ = ["PROCESSORS", "PilVideoProcessor", "load_processor"]

PROCESSORS: Mapping[str, Any] = {
    "llava": LlavaProcessor,
    "llava_next": LlavaNextProcessor,
    "llava_next_video": LlavaNextVideoProcessor,
    "llava_onevision": LlavaOnevisionProcessor,
    "video_llava": VideoLlavaProcessor,
}
"""Model types that videoqa serves."""


class PilVideoProcessor(VideoProcessorMixin, PilBackend):
    """What the torchvision video processors of these families do, with PIL.

    `pixel_values_videos` is a list, float32[T, 3, H, W] each, never stacked: videos of one
    prompt may differ in T.
    """

    # The defaults that the three families' classes share; a checkpoint states its own.
    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    do_resize = True
    do_rescale = True
    do_normalize = True
    default_to_square = False
    do_center_crop: bool | None = None
    size: SizeDict
    crop_size: SizeDict

    def preprocess(self, videos: Any, **_: Any) -> BatchFeature:
        """`videos`: uint8[T, H, W, 3] each."""
        prepared = [self._video(video) for video in make_batched_videos(videos)]
        return BatchFeature({"pixel_values_videos": prepared})

    def _video(self, video: Any) -> torch.Tensor:
        return torch.from_numpy(np.stack([self._frame(np.moveaxis(f, -1, 0)) for f in video]))

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        """uint8[3, H, W] to float32[3, h, w]."""
        if self.do_resize:
            frame = self.resize(frame, self.size, self.resample)
        if self.do_center_crop:
            frame = self.center_crop(frame, self.crop_size)
        if self.do_rescale:
            frame = self.rescale(frame, self.rescale_factor)
        if self.do_normalize:
            frame = self.normalize(frame, self.image_mean, self.image_std)
        return np.asarray(frame, dtype=np.float32)


VIDEO_SIZES: Mapping[str, dict[str, Any]] = {
    "llava_onevision": {"size": {"height": 384, "width": 384}},
    "llava_next_video": {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
    },
    "video_llava": {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
    },
}
"""For checkpoints that state none: the defaults of transformers' class of each family."""


class _Freed:
    """Mixed into a family's processor class: what upstream does only with torchvision."""

    # Upstream stacks the videos of a call into one tensor, which fails when they differ in T.
    skip_tensor_conversion = ("video_metadata", "text_replacement_offsets", "pixel_values_videos")

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        """Without torchvision, upstream fails to look the class up that it checks against."""
        if name == "video_processor" and isinstance(argument, VideoProcessorMixin):
            return VideoProcessorMixin
        return super().check_argument_for_proper_class(name, argument)  # type: ignore[misc]


def load_processor(checkpoint: str, config: Any, **hub: Any) -> Any:
    """The processor of a checkpoint, by its model type."""
    family = PROCESSORS[config.model_type]
    kind: Any = type(family.__name__, (_Freed, family), {})
    settings, _ = kind.get_processor_dict(checkpoint, **hub)
    loaders = {
        "tokenizer": lambda: AutoTokenizer.from_pretrained(checkpoint, **hub),
        "image_processor": lambda: AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            checkpoint, backend="pil", **hub
        ),
        "video_processor": lambda: _video_processor(checkpoint, config.model_type, hub),
    }
    parts = [loaders[name]() for name in kind.get_attributes()]  # type: ignore[no-untyped-call]
    processor = kind.from_args_and_dict(parts, settings)
    _complete(processor, config)
    return processor


def _video_processor(checkpoint: str, model_type: str, hub: dict[str, Any]) -> PilVideoProcessor:
    stated, _ = PilVideoProcessor.get_video_processor_dict(checkpoint, **hub)
    return PilVideoProcessor(**VIDEO_SIZES[model_type] | stated)


def _complete(processor: Any, config: Any) -> None:
    """Old checkpoints leave to the model's configuration what counts an image's tokens."""
    vision = config.vision_config
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = vision.patch_size
        # CLIP puts a class token before the patches; "default" then drops it again.
        processor.num_additional_image_tokens = int("clip" in vision.model_type)
    if getattr(processor, "vision_feature_select_strategy", "") is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if getattr(processor, "num_image_tokens", 0) is None:
        processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
