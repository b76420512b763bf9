"""Sources: opens an input by its URL (S3, HTTP(S), local file) as a file on this machine."""

from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources.local_copy import LocalCopy
from videoqa_worker.sources.ranges.plan import plan_ranges
from videoqa_worker.sources.sources import Sources

__all__ = [
    "LocalCopy",
    "SourceConfig",
    "Sources",
    "plan_ranges",
]
