"""CachedObject: the result object behind an entry of the answer cache, and its digest.

Storage may be writable by others than workers; Redis is not. An answer is therefore taken from an
object only if it still has the bytes that a worker stored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

__all__ = ["CachedObject"]


@dataclass(frozen=True)
class CachedObject:
    """URL, SHA-256 and size of a stored result."""

    url: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, url: str, data: bytes) -> Self:
        """Describes an object with these bytes."""
        return cls(url, hashlib.sha256(data).hexdigest(), len(data))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Reads an entry; None if it is none."""
        match text.split(" ", 2):
            case [sha256, size, url] if size.isascii() and size.isdigit() and len(size) < 16:
                return cls(url, sha256, int(size))
        return None

    def __str__(self) -> str:
        """Returns the entry, as Redis holds it."""
        return f"{self.sha256} {self.size_bytes} {self.url}"

    def holds(self, data: bytes) -> bool:
        """Tells if the object still has the bytes that were stored."""
        return self == type(self).of(self.url, data)
