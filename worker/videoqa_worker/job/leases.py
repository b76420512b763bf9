"""LeaseKeeper: renews the leases of all jobs that run here, and passes on what Redis says of them.

A thread of its own, so that neither a busy pool nor a slow publish delays a renewal. It
does not judge by its own clock: while Redis is away nobody else can take a job either, and
when it is back the renewal's answer says whose the job is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from videoqa import errors
from videoqa.jobs import Ledger
from videoqa_worker import log_events
from videoqa_worker.job.context import JobControl, apply_status

__all__ = ["LeaseKeeper"]

log = logging.getLogger(__name__)


_DRAINING_LEASE_S = 5.0
"""A worker that drains may be killed at any time; its jobs are elsewhere after this."""
_DRAINING_HEARTBEAT_S = 1.0


class LeaseKeeper:
    """Renews every held lease each `heartbeat_s`."""

    def __init__(self, ledger: Ledger, *, lease_s: float, heartbeat_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._held: set[JobControl] = set()
        self._lock = threading.Lock()
        self._is_draining = False
        self._stopped = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._woken.set()
        self._thread.join(timeout=10)

    def drain(self) -> None:
        """Renews leases for a short time only from now on, and marks their jobs as a draining worker's."""
        self._lease_s = min(self._lease_s, _DRAINING_LEASE_S)
        self._heartbeat_s = min(self._heartbeat_s, _DRAINING_HEARTBEAT_S)
        self._is_draining = True
        self._woken.set()

    @contextmanager
    def holding(self, control: JobControl) -> Iterator[None]:
        """Renews the lease until the block ends."""
        with self._lock:
            self._held.add(control)
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(control)

    def list_held(self) -> list[JobControl]:
        with self._lock:
            return list(self._held)

    def _run(self) -> None:
        away = False
        while not self._stopped:
            if self._woken.wait(self._heartbeat_s):
                self._woken.clear()
            try:
                self.beat()
                away = False
            except errors.RedisUnavailable as error:
                if not away:
                    log_events.LEASES_NOT_RENEWED.log(log, error=error)
                away = True
            except Exception:  # noqa: BLE001 - the thread must survive whatever one beat meets
                log_events.HEARTBEAT_FAILED.log(log, exc_info=True)

    def beat(self) -> None:
        """Renews all leases once."""
        held = self.list_held()
        if not held:
            return
        tokens = [(control.job_id, control.token) for control in held]
        statuses = self._ledger.renew(tokens, lease_s=self._lease_s, is_draining=self._is_draining)
        for control, status in zip(held, statuses, strict=True):
            apply_status(control, status)
