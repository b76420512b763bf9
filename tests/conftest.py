"""Fixtures by subject: a real Redis, real videos, real HTTP and S3 servers, real models, a real worker."""

import gc

pytest_plugins = [
    "support.redis",
    "support.servers",
    "support.videos",
    "kinds.accuracy",
    "support.attempts",
    "support.cli",
    "support.models",
    "support.forking.workers",
    "support.stack",
]


def pytest_collection_finish() -> None:
    """Takes all that imports made out of the garbage collector's sight.

    The engine collects each time that memory runs out: among the objects of torch and transformers
    that is 0.3 CPU s, and 13 of the 17 that six of its tests took.
    """
    gc.collect()
    gc.freeze()
