"""InFlightRow: one row of a run on its way to its line, and the collection of its result.

The idempotency key of a row's job is made of the result's place, the row's id and its whole
request. So a run that continues an earlier one joins the jobs of that, from whichever host it ran.

`collect_result` runs in several threads, since a store takes its time. It reads the result object
first, whatever the job's record says, since the object outlives the record.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from videoqa import errors
from videoqa.bulk.manifest import DIGEST_KEY, Row
from videoqa.bulk.manifest_files import object_name
from videoqa.bulk.output_dir import OutputDir
from videoqa.bulk.records import ResultLine, RowFailure, failed_line, result_line
from videoqa.bulk.row_index import StoredObjects
from videoqa.bulk.subtitle_files import SubtitleFormat, write_subtitles
from videoqa.client import Client
from videoqa.contract import Failure, Job, JobRequest, Result

__all__ = ["InFlightRow", "collect_result", "collect_stored", "record_failure"]


@dataclass
class InFlightRow:
    """A row, and what this run knows of its job."""

    row: Row
    number: int = 0
    """Number of its job: another one is needed where the record of the last lies about the result."""
    stored: StoredObjects = field(default_factory=StoredObjects)
    """The objects that OUTPUT held of the row before this run."""
    submitted: bool = False
    reopened: bool = False
    """True once its failed job was retried, which happens once a run."""
    job: Job | None = None
    """The final job; None if no end was seen, or its record is gone."""
    replaces: str | None = None
    """The job of the row's earlier result, of another request, which lies in OUTPUT."""

    def request(self, output: OutputDir) -> JobRequest:
        """Returns the request of the row's job."""
        body = self.row.request.model_copy(
            update={"output": output.template, "replaces": self.replaces}
        )
        text = f"{body.model_dump_json(exclude_defaults=True)}\n{self.number}"
        key = "caption-" + hashlib.sha256(text.encode()).hexdigest()
        return body.model_copy(update={"idempotency_key": key})


def collect_result(
    flight: InFlightRow,
    *,
    client: Client,
    output: OutputDir,
    subtitles: SubtitleFormat | None,
    retry_failed: bool,
) -> ResultLine | None:
    """Returns the row's line, or None if the row has to be submitted (again)."""
    row, job = flight.row, flight.job
    flight.job = None
    replaced = flight.replaces
    result = output.read_result(row)
    if result is not None and result.metadata.get(DIGEST_KEY) != row.digest:
        flight.replaces, result = result.job_id, None
    if result is None and job is not None and job.state == "succeeded":
        result = _restore_from_redis(client, output, flight, job)
    if result is not None:
        if flight.stored.failure is not None:
            output.delete_failure(row.custom_id)
        paths = write_subtitles(row, result, subtitles, output) if subtitles else ()
        return result_line(row.custom_id, output.result_url(row.custom_id), result, paths)
    if job is not None and job.state != "succeeded":
        if _met_other_run(job) and flight.replaces != replaced:
            return None
        return record_failure(output, row, job, job.failure or _unexplained_failure(job))
    if not flight.submitted and not retry_failed:
        failure = output.read_failure(row)
        return failed_line(failure) if failure is not None else None
    return None


def collect_stored(output: OutputDir, name: str) -> ResultLine | None:
    """Returns the line of a row of another run, by its objects alone; None: they are not a row's."""
    found = output.read_outcome(name)
    if found is None or found.custom_id is None or object_name(found.custom_id) != name:
        return None
    if isinstance(found, RowFailure):
        return failed_line(found)
    return result_line(found.custom_id, output.result_url(found.custom_id), found, ())


def _met_other_run(job: Job) -> bool:
    return job.failure is not None and job.failure.code == errors.OutputConflict.code


def _restore_from_redis(
    client: Client, output: OutputDir, flight: InFlightRow, job: Job
) -> Result | None:
    """Writes a deleted result object again if the job's record has the result; else asks for a new job."""
    with suppress(errors.LookupFailed, errors.OutputError):
        result = client.result(job.id)
        if output.write_result(flight.row, result):
            return result
    flight.number += 1
    return None


def record_failure(output: OutputDir, row: Row, job: Job | None, failure: Failure) -> ResultLine:
    """Writes the failure, so that later runs do not submit the row again, and returns its line.

    A conflict is not written: it ends when the object in the way is moved.
    """
    found = RowFailure(
        custom_id=row.custom_id,
        digest=row.digest,
        job_id=job.id if job else None,
        failure=failure,
        failed_at=datetime.now(UTC),
    )
    if failure.code != errors.OutputConflict.code:
        output.write_failure(found)
    return failed_line(found)


def _unexplained_failure(job: Job) -> Failure:
    return Failure(code=job.state, message=f"the job ended as {job.state}", attempt=job.attempt)
