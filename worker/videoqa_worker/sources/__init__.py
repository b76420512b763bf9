"""Sources: where the bytes of an input come from: S3, HTTP(S), or a local file."""

from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources.local_copy import LocalCopy
from videoqa_worker.sources.ranges.plan import plan
from videoqa_worker.sources.sources import Sources

__all__ = [
    "LocalCopy",
    "SourceConfig",
    "Sources",
    "plan",
]
