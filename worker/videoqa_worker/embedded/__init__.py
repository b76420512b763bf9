"""Private servers for one machine: what `videoqa up`, `make demo` and the tests start."""

from videoqa_worker.embedded.s3_server import S3Server, find_seaweedfs
from videoqa_worker.embedded.stack import Stack

__all__ = [
    "S3Server",
    "Stack",
    "find_seaweedfs",
]
