"""Celery's side of a worker: the task that a bell calls, and the consumer that hears bells."""

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
from celery.exceptions import Reject
from celery.platforms import SecurityWarning
from celery.worker import state

from videoqa.broker import TASK
from videoqa_worker.service.announcement import list_queues
from videoqa_worker.service.celery_consumer import BellConsumer
from videoqa_worker.service.runtime import Runtime

__all__ = ["hear_bells", "register"]

log = logging.getLogger(__name__)


def register(runtime: Runtime) -> None:
    """Puts the task on the runtime's Celery application."""
    logging.getLogger("celery.app.trace").addFilter(_is_no_rejection)

    @runtime.app.task(name=TASK, shared=False)  # type: ignore[untyped-decorator]
    def hear_bell(queue: str) -> None:
        # Celery still delivers bells while a worker shuts down: it would claim the job that it just gave back.
        if runtime.is_closing:
            time.sleep(0.2)
            raise Reject("this worker takes no more jobs now", requeue=True)
        heard = queue
        while not runtime.is_closing and runtime.process(heard):
            heard = ""


def _is_no_rejection(record: logging.LogRecord) -> bool:
    """Tells if a log record is about anything but a bell that was left to other workers.

    Each thread leaves a bell up to five times a second, and Celery would warn of each with a traceback.
    """
    data = getattr(record, "data", None)
    return not (isinstance(data, dict) and data.get("description") == "rejected")


def hear_bells(runtime: Runtime) -> int:
    """Consumes this worker's queues until a signal; returns the exit status.

    SIGTERM: running jobs may finish within `drain_grace_s`. SIGINT, SIGQUIT: they are given
    back at once.
    """
    register(runtime)
    # Celery warns root about pickled messages; we accept only JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    stopping = threading.Event()
    with _handle_signals(runtime, stopping):
        while True:
            worker = _celery_worker(runtime)
            worker.start()
            if stopping.is_set() or not worker.exitcode:
                return int(worker.exitcode or 0)
            # A broker that is full or lacks replicas is an "unrecoverable error" to Celery.
            log.warning("Celery gave up on the broker; connecting again, the model stays loaded")
            time.sleep(1)


@contextmanager
def _handle_signals(runtime: Runtime, stopping: threading.Event) -> Iterator[None]:
    """Connects the signals that stop a worker, until the block ends."""

    def shutting_down(**_: Any) -> None:
        if not stopping.is_set():
            stopping.set()
            runtime.drain(runtime.settings.drain_grace_s)

    def at_once(*_: Any) -> None:
        # Celery's own cold shutdown waits for the pool before it tells anybody.
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


def _celery_worker(runtime: Runtime) -> Any:
    return runtime.app.Worker(
        hostname=f"videoqa@{runtime.worker_id}",
        pool="videoqa_worker.service.celery_pool:TaskPool",
        consumer_cls=partial(BellConsumer, runtime.bells),
        concurrency=runtime.settings.job_slots,
        queues=list(list_queues(runtime.settings)),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        redirect_stdouts=False,
    )
