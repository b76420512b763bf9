"""A least-recently-used cache that holds up to so many bytes.

An engine has two of them: for the features of pictures, and for the KV of prompts up to their last
picture. Keys are digests of what a value was computed from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["CacheCounts", "LruCache"]

T = TypeVar("T")


@dataclass(frozen=True)
class CacheCounts:
    """Counters of one cache since the start."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    size_bytes: int = 0


class LruCache(Generic[T]):
    """Used by the engine's thread; any thread may read `counts`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evictions = self._size_bytes = 0

    @property
    def counts(self) -> CacheCounts:
        """The counters now."""
        with self._lock:
            return CacheCounts(
                self._hits, self._misses, self._evictions, len(self._entries), self._size_bytes
            )

    def get(self, key: bytes) -> T | None:
        """Returns the value of a key, or None."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return found[0]

    def accepts(self, size_bytes: int) -> bool:
        """Returns True if a value of this size can be stored at all."""
        return size_bytes <= self._limit_bytes

    def put(self, key: bytes, value: T, size_bytes: int) -> None:
        """Stores a value, and evicts the least recently used ones beyond the limit."""
        if not self.accepts(size_bytes):
            return
        with self._lock:
            _, before = self._entries.pop(key, (None, 0))
            self._entries[key] = value, size_bytes
            self._size_bytes += size_bytes - before
            while self._size_bytes > self._limit_bytes:
                self._evict()

    def clear(self) -> bool:
        """Evicts everything; returns False if the cache was empty."""
        with self._lock:
            had_entries = bool(self._entries)
            while self._entries:
                self._evict()
            return had_entries

    def _evict(self) -> None:
        _, (_, size_bytes) = self._entries.popitem(last=False)
        self._size_bytes -= size_bytes
        self._evictions += 1
