"""Log lines of a worker: time, level, message, and the job they are about."""

from __future__ import annotations

import logging

from videoqa.redaction import redact_text

__all__ = ["configure"]


class _JobFormatter(logging.Formatter):
    """Redacts URLs, of libraries' lines too; appends `job_id` and `attempt` where a record carries them."""

    def format(self, record: logging.LogRecord) -> str:
        line = redact_text(super().format(record))
        job_id = getattr(record, "job_id", None)
        return (
            f"{line} job_id={job_id} attempt={getattr(record, 'attempt', '?')}" if job_id else line
        )


def configure(level: str) -> None:
    """Sends the logs to stderr, those of libraries from WARNING up."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JobFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("videoqa", "videoqa_worker"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("celery.worker.consumer").setLevel(logging.INFO)
