"""Private servers on one machine, for `videoqa up`, `make demo` and the tests."""

from videoqa_worker.embedded.gateway import Gateway, has_gateway
from videoqa_worker.embedded.s3_server import S3Server, find_seaweedfs
from videoqa_worker.embedded.stack import Stack

__all__ = [
    "Gateway",
    "S3Server",
    "Stack",
    "find_seaweedfs",
    "has_gateway",
]
