"""Log lines of a worker: time, level, message, and the job they are about."""

from __future__ import annotations

import logging

from videoqa.printable import PrintableFormatter, printable

__all__ = ["configure"]


class _JobFormatter(PrintableFormatter):
    """Appends `job_id` and `attempt` where a record carries them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Returns the line without a traceback."""
        line = super().formatMessage(record)
        job_id = getattr(record, "job_id", None)
        if not job_id:
            return line
        return f"{line} job_id={printable(str(job_id))} attempt={getattr(record, 'attempt', '?')}"


def configure(level: str) -> None:
    """Sends the logs to stderr, those of libraries from WARNING up."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JobFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("videoqa", "videoqa_worker"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("celery.worker.consumer").setLevel(logging.INFO)
