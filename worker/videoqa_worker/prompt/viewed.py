"""The pictures of a job, and what was made of them for its first question.

Resizing or encoding pictures takes far longer than writing a prompt; the other questions about
them need the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
from transformers.feature_extraction_utils import BatchFeature

__all__ = ["Media", "Remembering", "Viewed"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Media:
    """One input of a job, as the model is to see it."""

    kind: Literal["image", "video"]
    frames: tuple[np.ndarray, ...]
    """uint8[H, W, 3] RGB each; one of them for an image."""
    pts_s: tuple[float, ...] | None = None
    """When each frame is shown, in seconds; None for an image."""


class Viewed:
    """Used by one thread at a time."""

    def __init__(self, media: Sequence[Media]) -> None:
        self.media = tuple(media)
        self._made: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, media: Sequence[Media] | Viewed) -> Viewed:
        return media if isinstance(media, Viewed) else cls(media)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned the first time for this key.

        An `id` in a key is one of a frame, or of something that was made here: these live as
        long as this does.
        """
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Within this block this thread's `Remembering` processors use what they made before."""
        _now.viewed = self
        try:
            yield
        finally:
            _now.viewed = None


_now = threading.local()


class Remembering:
    """Mixed into the class of an image or video processor."""

    def __call__(self, pictures: Any, *args: Any, **settings: Any) -> BatchFeature:
        viewed: Viewed | None = getattr(_now, "viewed", None)

        def process() -> BatchFeature:
            made: BatchFeature = super(Remembering, self).__call__(pictures, *args, **settings)  # type: ignore[misc]
            return made

        if viewed is None:
            return process()
        key = (id(self), tuple(map(id, _flat(pictures))))
        return BatchFeature(dict(viewed.once(key, process)))


def _flat(pictures: Any) -> Iterator[Any]:
    if isinstance(pictures, list | tuple):
        for picture in pictures:
            yield from _flat(picture)
    else:
        yield pictures
