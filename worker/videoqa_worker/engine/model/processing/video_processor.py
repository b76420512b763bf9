"""The video processors of the LLaVA families, without torchvision.

transformers resizes videos with torchvision only, so `PilVideoProcessor` does the steps of
the checkpoint's own configuration (resize, crop, rescale, normalise) frame by frame with
transformers' PIL backend. The families' video processors do nothing else: against them, with
torchvision 0.28, the shapes were equal and pixels differed by at most 2 of 255, on average
by 0.002 to 0.006.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import make_batched_videos

__all__ = ["VIDEO_SIZES", "PilVideoProcessor", "load_video_processor"]


class PilVideoProcessor(VideoProcessorMixin, PilBackend):
    """Does what the torchvision video processors of these families do, with PIL.

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
    pixel_dtype: Any = np.float32
    takes_metadata = False
    """These models are told no times."""

    def preprocess(self, videos: Any, **_: Any) -> BatchFeature:
        """Processes videos, uint8[T, H, W, 3] each."""
        prepared = [self._process_video(video) for video in make_batched_videos(videos)]
        return BatchFeature({"pixel_values_videos": prepared})

    def _process_video(self, video: Any) -> torch.Tensor:
        return torch.from_numpy(
            np.stack([self._process_frame(np.moveaxis(f, -1, 0)) for f in video])
        )

    def _process_frame(self, frame: np.ndarray) -> np.ndarray:
        """Processes uint8[3, H, W] to float32[3, h, w]."""
        if self.do_resize:
            frame = self.resize(frame, self.size, self.resample)
        if self.do_center_crop:
            frame = self.center_crop(frame, self.crop_size)
        if self.do_rescale:
            frame = self.rescale(frame, self.rescale_factor)
        if self.do_normalize:
            frame = self.normalize(frame, self.image_mean, self.image_std)
        return np.asarray(frame, dtype=self.pixel_dtype)


VIDEO_SIZES: Mapping[str, dict[str, Any]] = {
    "LlavaOnevisionProcessor": {"size": {"height": 384, "width": 384}},
    "LlavaNextVideoProcessor": {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
    },
    "VideoLlavaProcessor": {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
    },
}
"""Sizes for checkpoints that state none, by the class of the processor: the defaults of transformers."""


def load_video_processor(checkpoint: str, family: str, hub: Mapping[str, Any]) -> PilVideoProcessor:
    """Returns the video part of a checkpoint's processor, with the settings in its files."""
    stated, _ = PilVideoProcessor.get_video_processor_dict(checkpoint, **hub)
    return PilVideoProcessor(**VIDEO_SIZES[family] | stated)
