"""Object storage: reading and writing small objects whole, by s3:// and file:// URLs."""

from videoqa.storage.files import DISK_FULL
from videoqa.storage.objects import ObjectStore, file_path, make_s3_client
from videoqa.storage.s3_errors import (
    STRANGE_REPLIES,
    BucketNotFound,
    bound_error_bodies,
    translate_s3_errors,
)

__all__ = [
    "DISK_FULL",
    "STRANGE_REPLIES",
    "BucketNotFound",
    "ObjectStore",
    "bound_error_bodies",
    "file_path",
    "make_s3_client",
    "translate_s3_errors",
]
