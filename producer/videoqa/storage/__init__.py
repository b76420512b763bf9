"""Object storage: reading and writing small objects whole, by s3:// and file:// URLs."""

from videoqa.storage.objects import ObjectStore, file_path

__all__ = [
    "ObjectStore",
    "file_path",
]
