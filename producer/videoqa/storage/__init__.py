"""Object storage: whole small objects by URL, s3:// and file://."""

from videoqa.storage.objects import ObjectStore, file_path, one_name

__all__ = [
    "ObjectStore",
    "file_path",
    "one_name",
]
