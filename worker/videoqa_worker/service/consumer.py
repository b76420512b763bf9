"""Celery's side of a worker: its consumer, which hears bells until a signal."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery import signals
from celery.platforms import SecurityWarning
from celery.worker import state

from videoqa_worker import log_events
from videoqa_worker.service.announcement import list_queues
from videoqa_worker.service.celery_consumer import BellConsumer
from videoqa_worker.service.runtime import Runtime

__all__ = ["hear_bells"]

log = logging.getLogger(__name__)


def hear_bells(runtime: Runtime) -> int:
    """Consumes this worker's queues until a signal, and lets its jobs end; returns the exit status.

    SIGTERM: running jobs may finish within `drain_grace_s`. SIGINT, SIGQUIT: they are given
    back at once.
    """
    # Celery warns root about pickled messages; we accept only JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    stopping = threading.Event()
    with _handle_signals(runtime, stopping):
        while True:
            worker = _make_worker(runtime)
            worker.start()
            if stopping.is_set() or not worker.exitcode:
                runtime.wait_for_jobs()
                return int(worker.exitcode or 0)
            # A broker that is full or lacks replicas is an "unrecoverable error" to Celery.
            log_events.CELERY_GAVE_UP.log(log)
            time.sleep(1)


@contextmanager
def _handle_signals(runtime: Runtime, stopping: threading.Event) -> Iterator[None]:
    """Connects the signals that stop a worker, until the block ends."""

    def shutting_down(**_: Any) -> None:
        if not stopping.is_set():
            stopping.set()
            runtime.drain(runtime.settings.drain_grace_s)

    def at_once(*_: Any) -> None:
        # Celery's own cold shutdown would not tell the jobs.
        stopping.set()
        runtime.drain(0.0)
        state.should_stop = 0

    def ready(**_: Any) -> None:
        signal.signal(signal.SIGINT, at_once)
        signal.signal(signal.SIGQUIT, at_once)

    signals.worker_shutting_down.connect(shutting_down, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    try:
        yield
    finally:
        signals.worker_shutting_down.disconnect(shutting_down)
        signals.worker_ready.disconnect(ready)


def _make_worker(runtime: Runtime) -> Any:
    """Makes Celery's worker; it runs no tasks, so that its pool is the one without processes or threads."""
    return runtime.app.Worker(
        hostname=f"videoqa@{runtime.worker_id}",
        pool="solo",
        concurrency=1,
        use_eventloop=False,
        consumer_cls=partial(BellConsumer, runtime.bells, runtime.slots),
        queues=list(list_queues(runtime.settings)),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        redirect_stdouts=False,
    )
