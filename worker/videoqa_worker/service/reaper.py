"""Reaper: finds jobs that lost their worker, their bell or their time, and rings for them.

Every worker runs one; the transition is atomic in Redis, so they need no leader. It also
announces this worker, so that `status` can say who serves which model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import ChannelError

from videoqa import errors
from videoqa.broker import ring, translate_broker_errors
from videoqa.contract import WorkerInfo
from videoqa.jobs import Ledger

__all__ = ["Reaper"]

log = logging.getLogger(__name__)

ANNOUNCE_EVERY_S = 10.0


class Reaper:
    """Reaps every `every_s` seconds and announces its worker every 10 s."""

    def __init__(
        self,
        ledger: Ledger,
        app: Celery,
        describe: Callable[[], WorkerInfo],
        *,
        every_s: float,
        grace_s: float,
        tenant_running: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._app = app
        self._describe = describe
        self._every_s = every_s
        self._grace_s = grace_s
        self._tenant_running = tenant_running
        self._stop = threading.Event()
        self._announced_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops reaping, and removes this worker from the list of workers."""
        self._stop.set()
        self._thread.join(timeout=10)
        try:
            self._ledger.leave(self._describe().id)
        except errors.RedisUnavailable as error:
            log.warning("could not remove this worker from the list of workers: %s", error)

    def announce(self) -> None:
        self._ledger.announce(self._describe())
        self._announced_s = time.monotonic()

    def _run(self) -> None:
        away = False
        while not self._stop.wait(self._every_s):
            try:
                try:
                    self.reap()  # first: a Redis that is full hears of no worker, and lets jobs end
                finally:
                    if time.monotonic() - self._announced_s > ANNOUNCE_EVERY_S:
                        self.announce()
                away = False
            except errors.RedisUnavailable as error:
                if not away:
                    log.warning("the reaper cannot do all of its work: %s", error)
                away = True
            except Exception:  # the thread must survive whatever one round meets
                log.exception("a round of the reaper failed")

    def reap(self) -> int:
        """Makes one round; returns how many bells it rang."""
        queues = self._describe().queues
        try:
            empty = self._list_empty_queues()
        except errors.RedisUnavailable as error:
            # Leases and deadlines still end while a separate broker is away.
            log.debug("the broker does not say which queues are empty: %s", error)
            empty, queues = [], ()
        bells = self._ledger.reap(
            grace_s=self._grace_s,
            tenant_running=self._tenant_running,
            empty_queues=empty,
            filled_queues=[queue for queue in queues if queue not in empty],
        )
        refused: dict[str, errors.RedisUnavailable] = {}
        for bell in bells:
            log.info(
                "ringing for a job that is due, or that lost its worker or its bell",
                extra={"job_id": bell.job_id, "attempt": bell.attempt},
            )
            try:
                if bell.queue not in refused:
                    ring(self._app, bell)
            except errors.RedisUnavailable as error:  # another queue's may go on
                refused[bell.queue] = error
        if refused:
            raise next(iter(refused.values()))
        return len(bells)

    def _list_empty_queues(self) -> list[str]:
        """Lists those of this worker's queues in which the broker holds no message."""
        with translate_broker_errors(self._app), self._app.connection_for_read() as connection:
            return [queue for queue in self._describe().queues if _is_empty(connection, queue)]


def _is_empty(connection: Connection, queue: str) -> bool:
    try:
        with connection.channel() as channel:  # type: ignore[no-untyped-call]
            return bool(channel.queue_declare(queue=queue, passive=True).message_count == 0)
    except ChannelError:  # Redis has no such list: nothing waits in it
        return True
