"""The doorbell of a client: ringing for jobs that are recorded, which may fail and never raises."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from videoqa import errors
from videoqa.broker.bells import ring_many
from videoqa.broker.celery_app import make_celery, ring
from videoqa.jobs import Bell
from videoqa.settings import Settings

__all__ = ["Doorbell"]

log = logging.getLogger(__name__)


class Doorbell:
    """Rings for recorded jobs. Thread-safe; connects on first use."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError for a broker URL that cannot be used: before any job is recorded."""
        self._app = make_celery(settings)

    def ring(self, bells: Sequence[Bell]) -> None:
        """Publishes the bells, or logs a warning: the record is the job, and a reaper rings for it."""
        try:
            if len(bells) == 1:
                ring(self._app, bells[0])
            elif bells:
                ring_many(self._app, bells)
        except errors.RedisUnavailable as error:
            jobs = f"job {bells[0].job_id} is" if len(bells) == 1 else f"{len(bells)} jobs are"
            log.warning("%s recorded, and a worker will find it late: %s", jobs, error)

    def close(self) -> None:
        """Closes the connections to the broker."""
        self._app.close()
