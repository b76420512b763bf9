"""Object storage: whole small objects by URL, s3:// and file://."""

from videoqa.storage.objects import ObjectStore, file_path, quote_name

__all__ = [
    "ObjectStore",
    "file_path",
    "quote_name",
]
