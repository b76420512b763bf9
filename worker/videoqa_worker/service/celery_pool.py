"""TaskPool: Celery's threads pool, with the two things it lacks for a clean shutdown.

Celery's own threads pool has no `terminate_job` and its results no `terminate`, so a soft
or cold shutdown crashes (celery#10490). Here both exist and do nothing: a running job is
stopped through its JobControl, which the runtime sets before the pool closes.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency.thread import ApplyResult as BaseResult
from celery.concurrency.thread import TaskPool as BasePool

__all__ = ["TaskPool"]


class ApplyResult(BaseResult):  # type: ignore[misc]
    """A running task, which stops by itself when its job is told to."""

    def terminate(self, signal: Any = None) -> None:
        """Nothing to kill in a thread."""


class TaskPool(BasePool):  # type: ignore[misc]
    """Pool of threads, one a job."""

    def on_apply(self, *args: Any, **kwargs: Any) -> ApplyResult:
        return ApplyResult(super().on_apply(*args, **kwargs).f)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Nothing to kill in a thread."""
