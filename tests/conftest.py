"""Fixtures by subject: a real Redis, real videos, real HTTP and S3 servers, real models, a real worker."""

pytest_plugins = [
    "support.redis",
    "support.servers",
    "support.videos",
    "support.accuracy",
    "support.attempts",
    "support.cli",
    "support.models",
    "support.workers",
    "support.stack",
]
