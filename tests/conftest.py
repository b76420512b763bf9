"""Fixtures by subject: a real Redis, real videos, real HTTP and S3 servers, real models, a real worker."""

pytest_plugins = [
    "fix_redis",
    "fix_servers",
    "fix_videos",
    "fix_accuracy",
    "fix_attempts",
    "fix_cli",
    "fix_models",
    "fix_stack",
]
