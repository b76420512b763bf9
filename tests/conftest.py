"""Fixtures by subject: a real Redis, real videos, real HTTP and S3 servers, real models, a real worker."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = [
    "support.failures",
    "support.redis",
    "support.servers",
    "support.videos",
    "kinds.accuracy",
    "support.architecture_table",
    "support.cli",
    "support.forking.workers",
    "support.stack",
]

IMPORT_TORCH = ("support.attempts", "support.models")


def pytest_configure(config: pytest.Config) -> None:
    """Leaves torch and transformers out of the process that starts the lanes: 5 CPU s, and it runs no test."""
    if hasattr(config, "workerinput") or not config.getoption("tx", None):
        for name in IMPORT_TORCH:
            config.pluginmanager.import_plugin(name)


def pytest_collection_finish() -> None:
    """Takes all that imports made out of the garbage collector's sight.

    The engine collects each time that memory runs out: among the objects of torch and transformers
    that is 0.3 CPU s, and 13 of the 17 that six of its tests took.
    """
    gc.collect()
    gc.freeze()


SPREAD = ("tests/faults/test_faults.py",)
"""Files with long tests that share nothing."""


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Has one lane run a file's tests, since they share what is costly to start; those of SPREAD are spread."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if path in SPREAD else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)
