"""Log lines of a worker: time, level, message, and the job they are about."""

from __future__ import annotations

import logging

from videoqa.printable import PrintableFormatter, printable
from videoqa.redaction import redact_text

__all__ = ["configure"]


class _JobFormatter(PrintableFormatter):
    """Redacts URLs, of libraries' lines too; appends `job_id` and `attempt` where a record carries them."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the lines of a record, its traceback included, without what is in its URLs."""
        return redact_text(super().format(record))

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
