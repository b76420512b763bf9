"""The Celery side of a worker: the task that a bell calls, and the worker that hears bells."""

from __future__ import annotations

import warnings
from typing import Any

from celery import signals
from celery.platforms import SecurityWarning

from videoqa.queues import TASK
from videoqa.states import Bell
from videoqa_worker.runtime import Runtime

__all__ = ["hear_bells", "register"]


def register(runtime: Runtime) -> None:
    """Puts the task on the runtime's Celery application."""

    @runtime.app.task(name=TASK)  # type: ignore[untyped-decorator]
    def answer(job_id: str, attempt: int, bell: int, queue: str) -> None:
        runtime.answer(Bell(job_id=job_id, attempt=attempt, bell=bell, queue=queue))


def hear_bells(runtime: Runtime) -> int:
    """Consumes this worker's queues until a signal; returns the exit status.

    SIGTERM: running jobs may finish within `drain_grace_s`. SIGINT, SIGQUIT: they are given
    back at once.
    """
    register(runtime)
    # Celery warns root of pickled messages; we accept JSON alone.
    warnings.filterwarnings("ignore", category=SecurityWarning)

    def shutting_down(how: str = "Warm", **_: Any) -> None:
        runtime.drain(runtime.settings.drain_grace_s if how == "Warm" else 0.0)

    signals.worker_shutting_down.connect(shutting_down, weak=False)
    try:
        worker = runtime.app.Worker(
            hostname=f"videoqa@{runtime.worker_id}",
            pool="videoqa_worker.pool:TaskPool",
            concurrency=runtime.settings.job_slots,
            queues=list(runtime.settings.queues),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
            redirect_stdouts=False,
        )
        worker.start()
    finally:
        signals.worker_shutting_down.disconnect(shutting_down)
    return int(worker.exitcode or 0)
