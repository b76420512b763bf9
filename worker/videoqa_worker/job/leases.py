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
from videoqa_worker.job.context import JobControl, apply_status

__all__ = ["LeaseKeeper"]

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews every held lease each `heartbeat_s`."""

    def __init__(self, ledger: Ledger, *, lease_s: float, heartbeat_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._held: set[JobControl] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

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
        while not self._stop.wait(self._heartbeat_s):
            try:
                self.beat()
                away = False
            except errors.RedisUnavailable as error:
                if not away:
                    log.warning("leases can't be renewed, jobs go on: %s", error)
                away = True
            except Exception:  # the thread must survive whatever one beat meets
                log.exception("a heartbeat failed")

    def beat(self) -> None:
        """Renews all leases once."""
        held = self.list_held()
        if not held:
            return
        tokens = [(control.job_id, control.token) for control in held]
        statuses = self._ledger.renew(tokens, lease_s=self._lease_s)
        for control, status in zip(held, statuses, strict=True):
            apply_status(control, status)
