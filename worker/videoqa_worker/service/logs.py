"""Log lines of a worker: time, level, message, and the job they are about."""

from __future__ import annotations

import logging

from videoqa.errors import ConfigurationError

__all__ = ["configure"]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _JobFormatter(logging.Formatter):
    """Appends `job_id` and `attempt` where a record carries them."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        job_id = getattr(record, "job_id", None)
        return (
            f"{line} job_id={job_id} attempt={getattr(record, 'attempt', '?')}" if job_id else line
        )


def configure(level: str) -> None:
    """Logs to stderr; third parties from WARNING up.

    Raises:
        ConfigurationError: there is no such level.
    """
    if level.upper() not in LEVELS:
        raise ConfigurationError(
            f"VIDEOQA_LOG_LEVEL={level!r}: expected one of {', '.join(LEVELS)}", param="log_level"
        )
    handler = logging.StreamHandler()
    handler.setFormatter(_JobFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("videoqa", "videoqa_worker"):
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("celery.worker.consumer").setLevel(logging.INFO)
