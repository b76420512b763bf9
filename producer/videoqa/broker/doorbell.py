"""The doorbell of a client: ringing for jobs that are recorded, which may fail and never raises."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from videoqa import errors
from videoqa.broker.celery_app import make_celery, ring
from videoqa.settings import Settings
from videoqa.telemetry import log_events

__all__ = ["Doorbell"]

log = logging.getLogger(__name__)


class Doorbell:
    """Rings for recorded jobs. Thread-safe; connects on first use."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError for a broker URL that cannot be used: before any job is recorded."""
        self._app = make_celery(settings)

    def ring(self, queues: Sequence[str]) -> None:
        """Rings for each of the queues, or logs a warning: the record is the job, and a reaper rings for it."""
        try:
            for queue in queues:
                ring(self._app, queue)
        except errors.RedisUnavailable as error:
            log_events.BELL_NOT_RUNG.log(log, error=error)

    def close(self) -> None:
        """Closes the connections to the broker."""
        self._app.close()
