"""Announcement: the description of this worker by which others know that it lives.

Imports nothing heavy: a worker is announced as loading before it imports torch, which takes seconds.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from videoqa import errors
from videoqa.contract import PRIORITIES, WorkerInfo
from videoqa.jobs import Ledger, connect, queue_name
from videoqa_worker import __version__
from videoqa_worker.settings import WorkerSettings

__all__ = ["announce_loading", "describe_worker", "list_queues", "name_worker"]


@contextmanager
def announce_loading(settings: WorkerSettings) -> Iterator[None]:
    """Announces that this worker loads; its reaper goes on with that. Removes it from the list after a failure."""
    info = describe_worker(settings, started_at=datetime.now(UTC))
    with _reaching(settings) as ledger:
        ledger.announce(info)
    try:
        yield
    except BaseException:  # the reaper, which leaves the list at the end, may not be there yet
        with _reaching(settings) as ledger:
            ledger.leave(info.id)
        raise


@contextmanager
def _reaching(settings: WorkerSettings) -> Iterator[Ledger]:
    """Yields a ledger; a Redis that is away is no error, since it may come back while the model loads."""
    with suppress(errors.RedisUnavailable), connect(settings) as client:
        yield Ledger(client, url=settings.redis_url, prefix=settings.prefix)


def describe_worker(settings: WorkerSettings, *, started_at: datetime) -> WorkerInfo:
    """Describes this process as a worker whose model is not loaded yet."""
    return WorkerInfo(
        id=name_worker(),
        model=settings.model,
        queues=list_queues(settings),
        slots=settings.job_slots,
        tenant_running=settings.tenant_running,
        running=0,
        ready=False,
        started_at=started_at,
        seen_at=datetime.now(UTC),
        host=socket.gethostname(),
        version=__version__,
        spool=str(settings.sources.spool_dir or tempfile.gettempdir()),
        max_source_bytes=settings.sources.max_bytes,
        output=settings.output,
        summarizes=settings.engine.summarizes,
    )


def name_worker() -> str:
    """Returns the id of this process among the workers."""
    return f"{socket.gethostname()}:{os.getpid()}"


def list_queues(settings: WorkerSettings) -> tuple[str, ...]:
    """Lists the broker queues that a worker serves, interactive ones first."""
    models = (settings.model, None) if settings.serve_default else (settings.model,)
    return tuple(
        queue_name(settings.prefix, model, priority) for priority in PRIORITIES for model in models
    )
