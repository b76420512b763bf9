"""From where a worker may read, how long and how much, and in which pieces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["SourceConfig"]


@dataclass(frozen=True)
class SourceConfig:
    """Closed by default: no local files, no private networks."""

    spool_dir: Path | None = None
    """Folder for files on their way; None: the system's temporary folder."""
    spool_quota_bytes: int = 64 << 30
    """Of all processes that share the spool folder: 16 slots, each with the largest input."""
    max_bytes: int = 4 << 30
    """Fetched of one file, however large it is. An hour of 1080p has about 4 GB; times the slots
    of a worker this fills a disk."""
    connect_timeout_s: float = 5.0
    """Of one TCP connection, name lookup included."""
    read_timeout_s: float = 20.0
    """Without a single byte. Object stores take seconds to the first byte of cold data."""
    deadline_s: float = 600.0
    """Of waiting for one file, all requests together: what drips holds no slot forever."""
    file_roots: tuple[Path, ...] = ()
    """Folders below which file:// may be read; () closes file:// (VIDEOQA_FILE_ROOTS)."""
    private_addresses: bool = False
    """Lets http(s):// lead to loopback and private networks (VIDEOQA_PRIVATE_ADDRESSES).

    Off, because whoever may submit a job could read the worker's network through it.
    """
    http_retries: int = 2
    """After a whole body that ended early. A whole new attempt of the job costs more."""
    s3_endpoint_url: str | None = None
    """S3-compatible server; None: boto3's own chain (AWS_ENDPOINT_URL_S3, profile, AWS)."""
    download_below_bytes: int = 8 << 20
    """Smaller files come whole: a second round trip costs as much as these bytes."""
    range_bytes: int = 8 << 20
    """Of one ranged read at most: longer ones are split and come in parallel."""
    range_gap_bytes: int = 64 << 10
    """Spans closer than this are one request: a request costs more than these bytes."""
    range_parallel: int = 8
    """Ranges of one file on their way at once: the sampled GOPs of the usual job."""
    range_attempts: int = 3
    """Of one range. What came of it before the connection broke is kept."""
    whole_above: float = 0.6
    """With more of the file missing than this share, all of it is fetched."""
