"""Store: a result becomes an object in storage first, and the job's record after.

Whoever reads `succeeded` can read the object. A retried job writes the same URL again; an attempt that
comes too late, because its worker stood still, leaves the object of a later one alone.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from pathlib import Path

from videoqa import errors
from videoqa.contract import JobRequest, Result
from videoqa.storage import ObjectStore, file_path, quote_name
from videoqa_worker.job.cancellation import JobControl

__all__ = ["result_url", "roots_of", "store"]

log = logging.getLogger(__name__)

TRIES = 3


def result_url(template: str, job_id: str, request: JobRequest, created_at: datetime) -> str:
    """The template with its fields; the same for every attempt of a job."""
    return template.format(
        job_id=job_id,
        custom_id=quote_name(request.custom_id or "none"),
        date=created_at.strftime("%Y-%m-%d"),
    )


def roots_of(template: str, extra: tuple[Path, ...]) -> tuple[Path, ...]:
    """Folders that results may be written into: the default output's own, and the extra ones."""
    if not template.startswith("file:"):
        return extra
    fixed = template.partition("{")[0]
    return (file_path(fixed if fixed.endswith("/") else fixed.rpartition("/")[0]), *extra)


def store(objects: ObjectStore, url: str, result: Result, control: JobControl) -> None:
    """Writes the result object, trying again while storage does not answer.

    Raises:
        OutputDenied, OutputNotFound: final. OutputUnavailable: after three tries.
        LeaseLost: a later attempt of the job has stored its result.
    """

    def is_later(there: bytes) -> bool:
        try:
            found = json.loads(there)
            return bool(found["job_id"] == result.job_id and found["attempt"] > result.attempt)
        except (ValueError, KeyError, TypeError):  # anything else may be replaced
            return False

    data = result.model_dump_json(indent=2).encode()
    for attempt in range(1, TRIES + 1):
        control.check()
        try:
            if not objects.write(url, data, keeps=is_later):
                raise errors.LeaseLost(
                    f"attempt {result.attempt} of {result.job_id} is too late: a later one is stored"
                )
            return
        except errors.OutputUnavailable as error:
            if attempt == TRIES:
                raise
            log.warning("%s; trying again", error, extra={"job_id": control.job_id})
            time.sleep(0.2 * 2**attempt)
