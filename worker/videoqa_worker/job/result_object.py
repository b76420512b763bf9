"""Result object: built from an attempt's draft, and written to storage before the job's record.

Whoever reads `succeeded` can read the object. A retried job writes the same URL again; an attempt that
comes too late, because its worker stood still, leaves the object of a later one alone.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from videoqa import errors
from videoqa.contract import JobRequest, Result, Usage, to_datetime
from videoqa.jobs import Claim
from videoqa.storage import ObjectStore, file_path, quote_name
from videoqa_worker.job.answer_cache import AnswerCache, CacheKey
from videoqa_worker.job.context import JobControl
from videoqa_worker.job.draft import AttemptDraft

__all__ = ["build_result", "build_url", "list_roots", "reuse_result", "store_result"]

log = logging.getLogger(__name__)

TRIES = 3


def build_url(template: str, job_id: str, request: JobRequest, created_at: datetime) -> str:
    """Fills the fields of the template; every attempt of a job gets the same URL."""
    return template.format(
        job_id=job_id,
        custom_id=quote_name(request.custom_id or "none"),
        date=created_at.strftime("%Y-%m-%d"),
    )


def list_roots(template: str, extra: tuple[Path, ...]) -> tuple[Path, ...]:
    """Lists the folders that results may be written into: the default output's own, and the extra ones."""
    if not template.startswith("file:"):
        return extra
    fixed = template.partition("{")[0]
    return (file_path(fixed if fixed.endswith("/") else fixed.rpartition("/")[0]), *extra)


def build_result(claim: Claim, draft: AttemptDraft, cache: AnswerCache, key: CacheKey) -> Result:
    return Result(
        answers=draft.answers,
        segments=tuple(draft.segments),
        frames=tuple(draft.frames),
        sources=tuple(draft.sources),
        model=cache.model,
        model_revision=cache.revision,
        sampling=draft.sampling,
        generation=claim.request.generation,
        usage=draft.usage(claim.queued_s),
        warnings=tuple(draft.warnings),
        cache_key=key.lookup,
        **_own_fields(claim),
    )


def reuse_result(claim: Claim, known: Result) -> Result:
    """Returns an earlier job's answers as this job's result, which cost it no tokens."""
    return known.model_copy(
        update={
            "cached": True,
            "usage": Usage(queued_s=round(claim.queued_s, 4)),
            **_own_fields(claim),
        }
    )


def _own_fields(claim: Claim) -> dict[str, Any]:
    """Fields of a result that differ between jobs with the same answers."""
    return {
        "job_id": claim.job_id,
        "attempt": claim.attempt,
        "created_at": to_datetime(claim.created_at_s),
        "finished_at": datetime.now(UTC),
        "custom_id": claim.request.custom_id,
        "metadata": claim.request.metadata,
    }


def store_result(objects: ObjectStore, url: str, result: Result, control: JobControl) -> None:
    """Writes the result object; tries again while storage does not answer.

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
    for number in range(1, TRIES + 1):
        control.check()
        try:
            if not objects.write(url, data, keeps=is_later):
                raise errors.LeaseLost(
                    f"attempt {result.attempt} of {result.job_id} is too late: a later one is stored"
                )
            return
        except errors.OutputUnavailable as error:
            if number == TRIES:
                raise
            log.warning("%s; trying again", error, extra={"job_id": control.job_id})
            time.sleep(0.2 * 2**number)
