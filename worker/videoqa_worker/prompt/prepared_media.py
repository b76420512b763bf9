"""The media of a job, and everything that is computed from their pixels once for all of its questions.

Resizing, encoding, hashing or page-locking pictures takes far longer than writing a prompt, and every
question about them needs the same results. So do other jobs about the same frames: what a processor makes of
them is found by the digest of all that it is given, before it is made.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature

from videoqa_worker.prompt.digests import Digests
from videoqa_worker.prompt.picture_limits import NO_LIMITS, PictureLimits
from videoqa_worker.shared_cache import SharedCache

__all__ = ["FrameInput", "PixelCache", "PreparedMedia", "PreparedPixels", "make_pixel_cache"]

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
    """Page-locked copies of a job's pixel tensors, each made once.

    It holds the tensors, which must not be written to, but not the frames: a queued request keeps this, and
    frames are far larger. Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._pinned: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the tensor in page-locked memory, which CUDA reads by itself."""
        if id(tensor) not in self._pinned:
            self._pinned[id(tensor)] = tensor, tensor.pin_memory()
        return self._pinned[id(tensor)][1]


PixelCache = SharedCache[dict[str, Any]]
"""Results of one processor, by the digest of all that it was given."""


def make_pixel_cache(limit_bytes: int) -> PixelCache:
    return PixelCache(limit_bytes, size_of=_count_bytes)


def _ignore() -> None:
    pass


class PreparedMedia:
    """The media of one job and their prepared pixels; used by one thread at a time."""

    def __init__(self, media: Sequence[FrameInput], check: Callable[[], None] = _ignore) -> None:
        """
        Arguments:
            check: called while another job prepares the same pixels; raises if this one should end.
        """
        self.media = tuple(media)
        self.pixels = PreparedPixels()
        self._check = check
        self._digests = Digests()
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

    def digest(self, given: Any) -> bytes:
        """Returns the digest of all that a processor is given beside the text.

        What has no digest gets one that is never found again.
        """
        found = self._digests.find(given) if self.media else None
        return os.urandom(20) if found is None else found

    def prepare(
        self, cache: PixelCache, given: Any, compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Returns what `compute` makes of the given pictures, this job's or another's; not to be changed."""
        if not self.media:
            return compute()
        return cache.get(self.digest(given), compute, check=self._check).value

    def bind(self, processor: Any, cache: PixelCache) -> Any:
        """Returns a copy of a model's processor that computes the same pictures once for all jobs."""
        bound = copy.copy(processor)
        for name in ("image_processor", "video_processor"):
            part = getattr(processor, name, None)
            if part is not None:
                setattr(bound, name, _CachedProcessor(name, part, self, cache))
        return bound


class _CachedProcessor:
    """An image or video processor whose results are shared."""

    def __init__(self, name: str, part: Any, prepared: PreparedMedia, cache: PixelCache) -> None:
        self._name, self._part = name, part
        self._prepared, self._cache = prepared, cache

    def __call__(self, pictures: Any, *args: Any, **settings: Any) -> BatchFeature:
        key = (id(self._part), *map(id, _flatten(pictures)))
        processed = self._prepared.compute_once(
            key,
            lambda: self._prepared.prepare(
                self._cache,
                [self._name, pictures, args, settings],
                lambda: dict(self._part(pictures, *args, **settings)),
            ),
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


def _count_bytes(processed: Any) -> int:
    """Returns the size of all arrays and tensors of a processor's result."""
    if isinstance(processed, np.ndarray | torch.Tensor):
        return int(processed.nbytes)
    if isinstance(processed, dict):
        return sum(map(_count_bytes, processed.values()))
    return sum(map(_count_bytes, processed)) if isinstance(processed, list | tuple) else 0
