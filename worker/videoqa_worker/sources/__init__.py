"""Sources: opens an input by its URL (S3, HTTP(S), local file) as a file on this machine."""

from videoqa_worker.sources.identity import SourceVersion, identify_source, remove_signature
from videoqa_worker.sources.local_copy import LocalCopy
from videoqa_worker.sources.ranges.plan import plan_ranges
from videoqa_worker.sources.sources import Sources

__all__ = [
    "LocalCopy",
    "SourceVersion",
    "Sources",
    "identify_source",
    "plan_ranges",
    "remove_signature",
]
