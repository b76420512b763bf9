"""Fast pixels: resized as uint8 by torch, normalised on the device.

`use_fast_pixels` replaces a processor's image and video part by an object of a subclass with
`Uint8Steps` mixed in. The family's code still decides what happens to a picture (crop, pad, tiles,
sizes, token counts); the subclass changes three steps: `resize` is torch's antialiased
kernel for uint8, `rescale` and `normalize` do nothing, and `Normalisation` does their work
later. So pixels differ from the reference by the rounding of the resize alone. The kernel
runs on the calling thread, whatever torch's thread count is.

A part that needs anything else takes the reference path: its own steps, with PIL and numpy. The path of
each kind of picture is logged at the start and is `Prompter.pixels`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import ChannelDimension, PILImageResampling
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.video_llava.image_processing_video_llava import VideoLlavaImageProcessor

from videoqa_worker import log_events
from videoqa_worker.engine.model.processing.video_processor import PilVideoProcessor
from videoqa_worker.prompt import Normalisation

__all__ = ["MAX_RESIZED_PIXELS", "Uint8Steps", "use_fast_pixels"]

log = logging.getLogger(__name__)

FILTERS: Mapping[Any, str] = {
    PILImageResampling.BILINEAR: "bilinear",
    PILImageResampling.BICUBIC: "bicubic",
}
"""Filters of PIL for which torch has an antialiased kernel for uint8."""

PAD_AFTER_NORMALISING = (CLIPImageProcessorPil, SiglipImageProcessorPil)
KNOWN = (
    *PAD_AFTER_NORMALISING,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    VideoLlavaImageProcessor,
    PilVideoProcessor,
)
"""Checked classes: no step of theirs reads a value between resize and normalisation."""

MAX_RESIZED_PIXELS = 64_000_000
"""192 MB. Processors that fix the shorter edge and then crop make a strip 1.3 million pixels
long of a picture of 4000 x 1; PIL's path takes several times that memory."""


class Uint8Steps:
    """Mixed into an image processor's class; its pictures stay uint8."""

    normalisation: Normalisation
    pixel_dtype = np.uint8

    def resize(self, image: np.ndarray, size: Any, resample: Any, **layout: Any) -> np.ndarray:
        """Resizes uint8[3, H, W], or uint8[H, W, 3] if `layout` says so.

        Raises:
            ValueError: the picture would become larger than `MAX_RESIZED_PIXELS`.
        """
        if layout.get("input_data_format") == ChannelDimension.LAST:
            return np.moveaxis(self.resize(np.moveaxis(image, -1, 0), size, resample), 0, -1)
        height, width = _choose_size(image, size)
        if image.shape[1:] == (height, width):
            return image
        resized = torch.nn.functional.interpolate(
            _as_tensor(image)[None], (height, width), mode=FILTERS[resample], antialias=True
        )
        return np.asarray(resized[0])

    def rescale(self, image: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Does nothing: the device does it."""
        return image

    def normalize(self, image: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Does nothing: the device does it."""
        return image


def use_fast_pixels(processor: Any) -> None:
    """Replaces the parts of a processor by fast ones where that changes no other step."""
    for name in ("image_processor", "video_processor"):
        part = getattr(processor, name, None)
        if part is None:
            continue
        if reason := _find_obstacle(part):
            log_events.REFERENCE_PIXELS.log(log, name=name, reason=reason)
        else:
            setattr(processor, name, _make_fast(part))
            log_events.FAST_PIXELS.log(log, name=name)


def _make_fast(part: Any) -> Any:
    kind: Any = type(f"Fast{type(part).__name__}", (Uint8Steps, type(part)), {})
    fast = kind(**part.to_dict())
    fast.normalisation = _read_normalisation(part)
    return fast


def _find_obstacle(part: Any) -> str | None:
    """Returns why a part cannot take the fast path, or None."""
    if type(part) not in KNOWN:
        return f"{type(part).__name__} is not one of the classes that were checked"
    if part.do_resize and part.resample not in FILTERS:
        return f"torch has no kernel for resample={part.resample!r}"
    if part.do_resize and _read_edges(part.size).keys() not in (
        {"height", "width"},
        {"shortest_edge"},
    ):
        return f"size={part.size!r} is neither height and width nor shortest_edge"
    if isinstance(part, PAD_AFTER_NORMALISING) and getattr(part, "do_pad", None):
        return "it pads with zeros after normalising, which no uint8 stands for"
    if not _normalises_alike(part):
        return "its rescale and normalize are not (pixels / divisor - mean) / std"
    return None


def _read_normalisation(part: Any) -> Normalisation:
    """Returns the normalisation by the checkpoint's own numbers."""

    def channels(stated: Any) -> tuple[float, float, float]:
        red, green, blue = np.broadcast_to(np.asarray(stated, dtype=np.float64), 3).tolist()
        return red, green, blue

    return Normalisation(
        divisor=1 / part.rescale_factor if part.do_rescale else 1.0,
        mean=channels(part.image_mean if part.do_normalize else 0.0),
        std=channels(part.image_std if part.do_normalize else 1.0),
    )


def _normalises_alike(part: Any) -> bool:
    """Returns True if each of the 256 values becomes what the part's own steps make of it."""
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, axis=0)
    expected: Any = values.astype(np.float32)
    if part.do_rescale:
        expected = part.rescale(values, part.rescale_factor, input_data_format="channels_first")
    if part.do_normalize:
        expected = part.normalize(
            expected, part.image_mean, part.image_std, input_data_format="channels_first"
        )
    got = _read_normalisation(part)(torch.from_numpy(values), torch.device("cpu"), torch.float32)
    return bool(np.allclose(got.numpy(), expected, rtol=1e-6, atol=1e-6))


def _read_edges(size: Any) -> dict[str, int]:
    return {edge: length for edge, length in dict(size).items() if length}


def _choose_size(image: np.ndarray, size: Any) -> tuple[int, int]:
    """Returns the height and width to resize uint8[3, H, W] to."""
    edges = _read_edges(size)
    if "shortest_edge" in edges:
        height, width = get_resize_output_image_size(
            image,
            size=edges["shortest_edge"],
            default_to_square=False,
            input_data_format=ChannelDimension.FIRST,
        )
    else:
        height, width = edges["height"], edges["width"]
    if height * width > MAX_RESIZED_PIXELS:
        raise ValueError(
            f"got a picture of {image.shape[2]} x {image.shape[1]}, which the model's processor "
            f"would make {width} x {height}; expected at most {MAX_RESIZED_PIXELS} pixels"
        )
    return height, width


def _as_tensor(picture: np.ndarray) -> torch.Tensor:
    """Returns a tensor on the same memory, even if that is read-only (a memory map)."""
    if picture.flags.writeable:
        return torch.from_numpy(picture)
    try:
        return torch.utils.dlpack.from_dlpack(picture)
    except BufferError:  # numpy before 2.1 exports no read-only memory
        return torch.from_numpy(picture.copy())
