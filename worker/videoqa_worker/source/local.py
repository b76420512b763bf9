"""What every source hands on: a file on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["LocalCopy"]


@dataclass(frozen=True)
class LocalCopy:
    """Valid until the `with` that gave it ends."""

    path: Path
    size_bytes: int
    fetched_bytes: int
    """Over the network, repeated ranges included; 0 for file://."""
    etag: str | None
    """The source's own name for these bytes, without quotes; file://: size and mtime."""
    version_id: str | None
    """S3 only, where the bucket keeps versions."""
