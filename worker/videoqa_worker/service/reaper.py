"""Reaper: finds jobs that lost their worker, their bell or their time, and rings for them.

Every worker runs one; the transition is atomic in Redis, so they need no leader. It also
announces this worker, so that `status` can say who serves which model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import ChannelError
from kombu.transport import virtual

from videoqa import errors
from videoqa.broker import ring, translate_broker_errors
from videoqa.contract import WorkerInfo
from videoqa.jobs import Ledger
from videoqa_worker import log_events

__all__ = ["Reaper"]

log = logging.getLogger(__name__)

ANNOUNCE_EVERY_S = 20.0


class Reaper:
    """Reaps every `every_s` seconds and announces its worker every 20 s."""

    def __init__(
        self,
        ledger: Ledger,
        app: Celery,
        describe: Callable[[], WorkerInfo],
        *,
        every_s: float,
        grace_s: float,
        tenant_running: int | None = None,
        wake: Callable[[str], bool] = lambda queue: False,
    ) -> None:
        """
        Arguments:
            wake: called with a queue to ring; True: this worker is idle and claims from it at once, which takes
                no broker that is full or away.
        """
        self._ledger = ledger
        self._app = app
        self._describe = describe
        self._every_s = every_s
        self._grace_s = grace_s
        self._tenant_running = tenant_running
        self._wake = wake
        self._stop = threading.Event()
        self._announced_s = float("-inf")
        self.rung = 0
        """Bells that were rung since the start."""
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
            log_events.NOT_REMOVED.log(log, error=error)

    def announce_soon(self) -> None:
        """Has the worker announced with the next round, since its state has changed; for a signal's handler too."""
        self._announced_s = float("-inf")

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
                    log_events.REAPER_HINDERED.log(log, error=error)
                away = True
            except Exception:  # noqa: BLE001 - the thread must survive whatever one round meets
                log_events.REAPER_FAILED.log(log, exc_info=True)

    def reap(self) -> int:
        """Makes one round, unless another worker has just made one; returns how many bells it rang."""
        found = self._ledger.reap(
            grace_s=self._grace_s, tenant_running=self._tenant_running, every_s=self._every_s / 2
        )
        queues = list(found.ring)
        if found.doubtful:
            try:
                queues += self._ledger.ring_again(self._find_empty(found.doubtful))
            except errors.RedisUnavailable as error:
                # Leases and deadlines still end while a separate broker is away.
                log_events.BROKER_SILENT.log(log, error=error)
        refused: errors.RedisUnavailable | None = None
        for queue in queues:
            log_events.RINGING.log(log, queue=queue)
            self.rung += 1
            try:
                if not self._wake(queue):
                    ring(self._app, queue)
            except errors.RedisUnavailable as error:  # another queue's may go on
                refused = error
        if refused:
            raise refused
        return len(queues)

    def _find_empty(self, queues: Sequence[str]) -> list[str]:
        """Finds those of the queues in which the broker holds no message, over the connection that rings."""
        with translate_broker_errors(self._app), self._app.producer_or_acquire() as producer:
            connection = producer.connection
            try:
                return [queue for queue in queues if _is_empty(connection, queue)]
            except connection.connection_errors:
                connection.collect()  # else the next round would meet the broken one again
                raise


def _is_empty(connection: Connection, queue: str) -> bool:
    channel: Any = connection.default_channel
    is_emulated = isinstance(channel, virtual.Channel)
    if not is_emulated:  # AMQP closes a channel that asks for a queue which nobody has made yet
        channel = connection.channel()  # type: ignore[no-untyped-call]
    try:
        return bool(channel.queue_declare(queue=queue, passive=True).message_count == 0)
    except ChannelError:  # Redis has no such list: nothing waits in it
        return True
    finally:
        if not is_emulated:
            channel.close()
