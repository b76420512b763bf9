"""Frames that several jobs of a worker need are decoded once.

Each job opens its inputs itself, so that it has shown its right to read them and knows their version now. If
another job of the worker is taking the same frames of the same version, this one waits for them; if one has taken
them just before, they are still here. The job that decodes does so with its own copy and under its own deadline,
and when it is cancelled the next one takes over. Frames are read-only from here on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Self

from videoqa.contract import Input, Sampling
from videoqa.errors import SamplingError
from videoqa_worker.frames import SampledVideo
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.shared_cache import Shared, SharedCache, SharedCounts
from videoqa_worker.sources import LocalCopy, SourceVersion

__all__ = ["SharedFrames"]

_MOST_VIDEOS = 64
"""Each holds a file descriptor."""


class SharedFrames:
    """The frames that jobs of one worker share. Thread-safe; a context manager that frees them."""

    def __init__(
        self,
        *,
        is_on: bool = True,
        limit_bytes: int = 0,
        keep_s: float = 30.0,
        per_tenant: bool = True,
    ) -> None:
        """
        Arguments:
            is_on: False: every job takes its frames itself.
            limit_bytes: of frames that are kept for later jobs.
            per_tenant: jobs of different tenants share nothing.
        """
        self._is_on, self._per_tenant = is_on, per_tenant
        self._cache: SharedCache[SampledVideo] = SharedCache(
            limit_bytes, size_of=_count_bytes, max_entries=_MOST_VIDEOS, keep_s=keep_s
        )

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """Makes the shared frames of a worker with these settings."""
        return cls(
            is_on=settings.share_frames,
            limit_bytes=settings.frame_cache_bytes,
            keep_s=settings.frame_cache_s,
            per_tenant=settings.cache_scope == "tenant",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cache.close()

    @property
    def counts(self) -> SharedCounts:
        """The counters now."""
        return self._cache.counts

    def take(
        self,
        item: Input,
        copy: LocalCopy,
        version: SourceVersion,
        sampling: Sampling,
        *,
        tenant: str | None,
        sample: Callable[[], SampledVideo],
        check: Callable[[], None],
    ) -> Shared[SampledVideo]:
        """Returns the frames of an open input, from another job or from `sample`.

        Arguments:
            version: of the copy, as it was opened by this job.
            check: called while another job takes them; raises if this one should end.

        Raises:
            Whatever `sample` and `check` raise. An error that will be the same for every job, such as VideoCorrupt, is
            that of the job that took the frames.
        """
        if not (self._is_on and version.names_bytes):
            return Shared(sample(), is_own=True)

        def take_own() -> SampledVideo:
            video = sample()
            for frame in video.frames:
                frame.pixels.flags.writeable = False
            return video

        return self._cache.get(
            self._make_key(item, version, sampling, tenant),
            take_own,
            check=check,
            may_share=lambda video: copy.is_intact,
            is_final=lambda error: _is_final(error) and copy.is_intact,
        )

    def _make_key(
        self, item: Input, version: SourceVersion, sampling: Sampling, tenant: str | None
    ) -> bytes:
        parts = [
            [tenant] if self._per_tenant else "fleet",
            [version.url, version.etag, version.version_id, version.size_bytes, version.state],
            item.model_dump(mode="json", exclude={"url"}),
            sampling.model_dump(mode="json"),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def _is_final(error: Exception) -> bool:
    return isinstance(error, SamplingError) and not error.retryable


def _count_bytes(video: SampledVideo) -> int:
    return sum(frame.pixels.nbytes for frame in video.frames)
