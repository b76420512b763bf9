"""Result object: built from an attempt's draft, and written to storage before the job's record.

Whoever reads `succeeded` can read the object. An object belongs to the job whose id it has: a retried
job writes it again, and another job never does, unless its request names the first in `replaces` and both
have one tenant. An attempt that comes too late, because its worker stood still, leaves the object of a
later one alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from videoqa import errors
from videoqa.contract import (
    JobRequest,
    Model,
    Result,
    Usage,
    Warn,
    check_output,
    fixed_part,
    parse_stored,
    render_output,
    to_datetime,
)
from videoqa.jobs import Claim
from videoqa.storage import ObjectStore, file_path
from videoqa_worker import log_events
from videoqa_worker.job.context import JobControl
from videoqa_worker.job.draft import AttemptDraft
from videoqa_worker.job.sheet import KeptSheet

__all__ = [
    "AnsweredJob",
    "build_result",
    "build_url",
    "check_output_free",
    "list_roots",
    "reuse_result",
    "store_result",
]

log = logging.getLogger(__name__)

TRIES = 3
_PROBED_BYTES = 4 << 20
"""No more of an object is read before the model is asked; one that is larger is judged at the end."""


class _Owner(Model):
    """The fields of a result object that tell whose it is; anybody may have written it."""

    job_id: str
    tenant: str | None = None
    attempt: int = Field(ge=1, le=1_000_000)


def build_url(template: str, job_id: str, request: JobRequest, created_at: datetime) -> str:
    """Fills the fields of the template; every attempt of a job gets the same URL."""
    return render_output(
        template, job_id=job_id, custom_id=request.custom_id, created_at=created_at
    )


def list_roots(template: str, extra: tuple[Path, ...]) -> tuple[Path, ...]:
    """Lists the folders that results may be written into: the default output's own, and the extra ones."""
    if not template.startswith("file:"):
        return extra
    return (file_path(fixed_part(template)), *extra)


def check_output_free(objects: ObjectStore, url: str, claim: Claim) -> None:
    """Refuses a job whose result could not be stored, before the model is asked.

    Raises:
        OutputDenied: the URL may not be written.
        OutputConflict: another job's object is there. Only looked for where jobs choose the name;
            `store_result` looks in any case.
    """
    objects.check(url)
    template = claim.request.output
    if template is None or "job_id" in check_output(template):
        return
    try:
        there = objects.read(url, _PROBED_BYTES)
        if len(there) < _PROBED_BYTES:
            _is_later(there, url, claim.job_id, claim.attempt, claim.request)
    except errors.OutputConflict:
        with suppress(errors.OutputError):
            if objects.read(url, _PROBED_BYTES) != there:
                return  # bytes were broken on the way
        raise
    except errors.OutputError:  # nothing is there, or it can't be told yet
        return


class AnsweredJob(Protocol):
    """The facts of a job that its result repeats: those of a `Claim`, or of a request that came by no queue."""

    @property
    def job_id(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def request(self) -> JobRequest: ...

    @property
    def created_at_s(self) -> float: ...

    @property
    def queued_s(self) -> float: ...


def build_result(
    job: AnsweredJob,
    draft: AttemptDraft,
    sheet: KeptSheet,
    *,
    model: str,
    revision: str | None,
    cache_key: str | None = None,
) -> Result:
    """Builds the result of an attempt that has its answers.

    Arguments:
        cache_key: key by which later jobs find the answers.
    """
    return Result(
        answers=draft.answers,
        segments=tuple(draft.segments),
        frames=tuple(draft.frames),
        sources=tuple(draft.sources),
        model=model,
        model_revision=revision,
        sampling=draft.sampling,
        generation=draft.generation,
        usage=draft.usage(job.queued_s),
        cache_key=None if draft.is_reread else cache_key,
        **_own_fields(job, sheet, draft.warnings),
    )


def reuse_result(claim: Claim, known: Result, sheet: KeptSheet) -> Result:
    """Returns an earlier job's answers as this job's result, which cost it no tokens."""
    return known.model_copy(
        update={
            "cached": True,
            "usage": Usage(queued_s=round(claim.queued_s, 4)),
            **_own_fields(claim, sheet, _drop_sheet_warnings(known.warnings)),
        }
    )


def _drop_sheet_warnings(warnings: Sequence[Warn]) -> list[Warn]:
    return [warning for warning in warnings if warning.param != "sheet"]


def _own_fields(job: AnsweredJob, sheet: KeptSheet, warnings: Sequence[Warn]) -> dict[str, Any]:
    """Fields of a result that differ between jobs with the same answers."""
    return {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "created_at": to_datetime(job.created_at_s),
        "finished_at": datetime.now(UTC),
        "custom_id": job.request.custom_id,
        "tenant": job.request.tenant,
        "metadata": job.request.metadata,
        "warnings": (*warnings, *([sheet.warning] if sheet.warning else [])),
        "sheet_url": sheet.url,
        "sheet": sheet.layout,
    }


def store_result(
    objects: ObjectStore, url: str, result: Result, request: JobRequest, control: JobControl
) -> bytes:
    """Writes the result object; tries again while storage does not answer.

    Returns:
        The object's bytes.

    Raises:
        OutputDenied, OutputNotFound, OutputConflict: final. OutputUnavailable: after three tries.
        LeaseLost: a later attempt of the job has stored its result.
    """

    def is_later(there: bytes) -> bool:
        return _is_later(there, url, result.job_id, result.attempt, request)

    data = result.model_dump_json(indent=2).encode()
    for number in range(1, TRIES + 1):
        control.check()
        try:
            if not objects.write(url, data, keeps=is_later):
                raise errors.LeaseLost(
                    f"attempt {result.attempt} of {result.job_id} is too late: a later one is stored"
                )
            break
        except errors.OutputUnavailable as error:
            if number == TRIES:
                raise
            log_events.STORING_AGAIN.log(log, error=error)
            time.sleep(0.2 * 2**number)
    return data


def _is_later(there: bytes, url: str, job_id: str, attempt: int, request: JobRequest) -> bool:
    """Tells if an object is of a later attempt of the job; raises OutputConflict if it is not the job's."""
    owner, tenant, stored = _read_owner(there)
    if owner == job_id:
        return stored > attempt
    if owner is not None and owner == request.replaces and tenant == request.tenant:
        return False
    holds = "no result of a job" if owner is None else "another job's result"
    raise errors.OutputConflict(
        f"{url} holds {holds} and stays as it is; put {{job_id}} into output, choose another "
        "custom_id, or name the job whose result this one replaces in `replaces`",
        param="output",
    )


def _read_owner(there: bytes) -> tuple[str | None, str | None, int]:
    """Returns the job, tenant and attempt that a result object belongs to; no job if it is none."""
    try:
        found = parse_stored(_Owner, there)
    except errors.InvalidRequest:
        return None, None, 0
    return found.job_id, found.tenant, found.attempt
