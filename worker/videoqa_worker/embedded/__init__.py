"""Private servers for one machine: what `videoqa up`, `make demo` and the tests start."""

from videoqa_worker.embedded.redis_server import find_binary
from videoqa_worker.embedded.s3_server import S3Server
from videoqa_worker.embedded.stack import Stack

__all__ = [
    "S3Server",
    "Stack",
    "find_binary",
]
