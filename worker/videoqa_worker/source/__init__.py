"""Where the bytes of an input come from: S3, HTTP(S), or a local file."""

from videoqa_worker.source.config import SourceConfig
from videoqa_worker.source.local import LocalCopy
from videoqa_worker.source.sources import Sources

__all__ = ["LocalCopy", "SourceConfig", "Sources"]
