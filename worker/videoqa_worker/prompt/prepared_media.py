"""The media of a job, and everything that is computed from their pixels once for all of its questions.

Resizing, encoding, hashing or page-locking pictures takes far longer than writing a prompt, and every
question about them needs the same results.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature

from videoqa_worker.prompt.picture_limits import NO_LIMITS, PictureLimits

__all__ = ["FrameInput", "PreparedMedia", "PreparedPixels"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FrameInput:
    """The frames of one input of a job, for the model."""

    kind: Literal["image", "video"]
    frames: tuple[np.ndarray, ...]
    """uint8[H, W, 3] RGB each; one of them for an image."""
    pts_s: tuple[float, ...] | None = None
    """Presentation time of each frame in seconds; None for an image."""
    asked: Literal["image", "video"] | None = None
    """Kind that the request names, whose mark may place the input as well; None: `kind`."""
    duration_s: float | None = None
    """Length of the whole video in seconds, if it is known."""
    limits: PictureLimits = NO_LIMITS
    """Limits of each of the job's pictures, as the model sees it."""


class PreparedPixels:
    """Digests and page-locked copies of a job's pixel tensors, each computed once.

    It holds the tensors, which must not be written to, but not the frames: a queued request keeps this, and
    frames are far larger. Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._digests: dict[int, tuple[torch.Tensor, bytes]] = {}
        self._pinned: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def digest(self, tensor: torch.Tensor) -> bytes:
        """Returns a digest of the tensor's bytes: 5 ms for 8 frames of 384 x 384."""
        if id(tensor) not in self._digests:
            self._digests[id(tensor)] = tensor, _compute_digest(tensor)
        return self._digests[id(tensor)][1]

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the tensor in page-locked memory, which CUDA reads by itself."""
        if id(tensor) not in self._pinned:
            self._pinned[id(tensor)] = tensor, tensor.pin_memory()
        return self._pinned[id(tensor)][1]


class PreparedMedia:
    """The media of one job and their prepared pixels; used by one thread at a time."""

    def __init__(self, media: Sequence[FrameInput]) -> None:
        self.media = tuple(media)
        self.pixels = PreparedPixels()
        self._results: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, media: Sequence[FrameInput] | PreparedMedia) -> PreparedMedia:
        """Returns media that are prepared already as they are."""
        return media if isinstance(media, PreparedMedia) else cls(media)

    def compute_once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Returns the result of `compute` at the first call with this key.

        An `id` in a key belongs to a frame, or to a result of this method: they live as long as
        this object does.
        """
        if key not in self._results:
            self._results[key] = compute()
        return cast(T, self._results[key])

    def bind(self, processor: Any) -> Any:
        """Returns a copy of a model's processor that computes the same pictures once for this job."""
        bound = copy.copy(processor)
        for name in ("image_processor", "video_processor"):
            part = getattr(processor, name, None)
            if part is not None:
                setattr(bound, name, _CachedProcessor(part, self))
        return bound


class _CachedProcessor:
    """An image or video processor whose results belong to a job."""

    def __init__(self, part: Any, prepared: PreparedMedia) -> None:
        self._part, self._prepared = part, prepared

    def __call__(self, pictures: Any, *args: Any, **settings: Any) -> BatchFeature:
        key = (id(self._part), *map(id, _flatten(pictures)))
        processed = self._prepared.compute_once(
            key, lambda: self._part(pictures, *args, **settings)
        )
        return BatchFeature(dict(processed))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def _flatten(pictures: Any) -> Iterator[Any]:
    if isinstance(pictures, list | tuple):
        for picture in pictures:
            yield from _flatten(picture)
    else:
        yield pictures


def _compute_digest(tensor: torch.Tensor) -> bytes:
    # NumPy has no bfloat16, in which Llama 4's processor writes pixels.
    whole: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(memoryview(whole), digest_size=20).digest()
