"""ProgressWriter: writes where the attempts of a worker are, of all of them in one call to Redis.

A job of a second passes through its stages faster than anybody looks. So a report waits for a moment, and the next
one of the same attempt takes its place; what is left when the attempt ends is not written at all. Text is not held
back: nothing may take its place.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Self

from videoqa import errors
from videoqa.jobs import Ledger
from videoqa_worker import log_events
from videoqa_worker.job.context import JobControl, Progress, apply_status

__all__ = ["ProgressWriter"]

log = logging.getLogger(__name__)


class ProgressWriter:
    """Writes the latest report of each attempt. Thread-safe. A context manager."""

    def __init__(self, ledger: Ledger, *, every_s: float) -> None:
        self._ledger = ledger
        self._every_s = every_s
        self._latest: dict[JobControl, Progress] = {}
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        """Held while reports are on their way, so that none comes after a later write of its attempt."""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=10)

    def note(self, control: JobControl, progress: Progress) -> None:
        """Writes the report soon, unless another one takes its place."""
        with self._changed:
            self._latest[control] = progress
            self._changed.notify()

    def drop(self, control: JobControl) -> None:
        """Drops the attempt's report that waits, if there is one: another write says more. Waits for one on its way."""
        with self._writing, self._changed:
            self._latest.pop(control, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._latest or self._is_closed.is_set())
            if self._is_closed.wait(self._every_s):
                return
            try:
                self.write()
            except Exception:  # noqa: BLE001 - the thread must survive whatever one call meets
                log_events.PROGRESS_FAILED.log(log, exc_info=True)

    def write(self) -> None:
        """Writes all reports that wait; they are lost if Redis is away, as the next ones say more."""
        with self._writing:
            with self._changed:
                latest, self._latest = self._latest, {}
            if not latest:
                return
            reports = [(one.job_id, one.token, progress) for one, progress in latest.items()]
            with suppress(errors.RedisUnavailable):  # the heartbeat tells
                for control, status in zip(latest, self._ledger.report(reports), strict=True):
                    apply_status(control, status)
