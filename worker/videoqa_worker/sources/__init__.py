"""Sources: where the bytes of an input come from: S3, HTTP(S), or a local file."""

from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources.identity import SourceVersion, identify_source, remove_signature
from videoqa_worker.sources.local_copy import LocalCopy
from videoqa_worker.sources.ranges.plan import plan
from videoqa_worker.sources.sources import Sources

__all__ = [
    "LocalCopy",
    "SourceConfig",
    "SourceVersion",
    "Sources",
    "identify_source",
    "plan",
    "remove_signature",
]
