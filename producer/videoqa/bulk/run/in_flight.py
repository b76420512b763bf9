"""InFlightRow: one row of a run on its way to its outcome, and the collection of its result.

The idempotency key of a row's job is made of the result's place, the row's id and its whole
request. So a run that continues an earlier one joins the jobs of that, from whichever host it ran.

`collect_result` runs in several threads, since a store takes its time. It reads the result object
first, whatever the job's record says, since the object outlives the record.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from videoqa import errors
from videoqa.bulk.index.output_index import IndexEntry
from videoqa.bulk.manifest.manifest import DIGEST_KEY, Row
from videoqa.bulk.output.outcomes import Outcome, make_failure, make_outcome
from videoqa.bulk.output.output_dir import OutputDir, StoredRow
from videoqa.bulk.output.records import RowFailure
from videoqa.bulk.output.subtitle_files import Subtitles, write_subtitles
from videoqa.client import Client
from videoqa.contract import Failure, Job, JobRequest, JobState, Result, redact_url

__all__ = ["InFlightRow", "collect_result", "record_failure"]


@dataclass
class InFlightRow:
    """A row, and what this run knows of its job."""

    row: Row
    entry: IndexEntry | None = None
    """The row's outcome in OUTPUT before this run."""
    number: int = 0
    """Number of its job: another one is needed where the record of the last lies about the result."""
    job_id: str | None = None
    """The job that this run has submitted for it."""
    reopened: bool = False
    """True once its failed job was retried, which happens once a run."""
    state: JobState | None = None
    """The job's final state; None if no end was seen, or its record is gone."""
    job: Job | None = None
    """The final job, if it has no result."""
    replaces: str | None = None
    """The job of the row's earlier result, of another request, which lies in OUTPUT."""

    def __post_init__(self) -> None:
        self.replaces = self.entry.result_job_id if self.entry else None

    def request(self, output: OutputDir, *, sets_output: bool) -> JobRequest:
        """Returns the request of the row's job.

        Arguments:
            sets_output: its worker writes the result into OUTPUT; else the run does, by `collect_result`.
        """
        body = self.row.request.model_copy(
            update={"output": output.template, "replaces": self.replaces}
        )
        text = f"{body.model_dump_json(exclude_defaults=True)}\n{self.number}"
        key = "caption-" + hashlib.sha256(text.encode()).hexdigest()
        if not sets_output:
            body = body.model_copy(update={"output": None, "replaces": None})
        return body.model_copy(update={"idempotency_key": key})


def collect_result(
    flight: InFlightRow, *, client: Client, output: OutputDir, subtitles: Subtitles | None
) -> Outcome | None:
    """Returns the row's outcome, or None if the row has to be submitted (again)."""
    row, state, job = flight.row, flight.state, flight.job
    flight.state = flight.job = None
    replaced = flight.replaces
    stored = output.read_result(row)
    if stored.result is not None and stored.result.metadata.get(DIGEST_KEY) != row.digest:
        flight.replaces, stored = stored.result.job_id, StoredRow()
    if stored.result is None and state == "succeeded":
        try:
            stored = _take_from_record(client, output, flight)
        except errors.Unavailable:  # by its idempotency key the row finds its job again
            return None
    if stored.result is not None:
        if flight.entry is not None and flight.entry.failure is not None:
            output.delete_failure(row.custom_id)
        paths = write_subtitles(row, stored.result, subtitles, output) if subtitles else ()
        return make_outcome(output, stored, subtitles=str(subtitles or ""), paths=paths)
    if job is None or (_met_other_run(job) and flight.replaces != replaced):
        return None
    return record_failure(output, flight, job.id, job.failure or _unexplained_failure(job))


def _met_other_run(job: Job) -> bool:
    return job.failure is not None and job.failure.code == errors.OutputConflict.code


def _take_from_record(client: Client, output: OutputDir, flight: InFlightRow) -> StoredRow:
    """Writes the result that a client reads into OUTPUT; without one, asks for a new job.

    The result is not there if somebody deleted it, or if no worker writes there, as behind a gateway.
    """
    with suppress(errors.LookupFailed, errors.OutputError):
        stored = output.write_result(
            flight.row, _read_result(client, flight), replaces=flight.replaces
        )
        if stored.result is not None:
            return stored
    flight.number += 1
    return StoredRow()


def _read_result(client: Client, flight: InFlightRow) -> Result:
    if flight.job_id is None:
        raise errors.JobNotFound("the row was not submitted")
    return client.result(flight.job_id)


def record_failure(
    output: OutputDir, flight: InFlightRow, job_id: str | None, failure: Failure
) -> Outcome:
    """Writes the failure, so that later runs do not submit the row again, and returns it as outcome.

    A conflict is not written: it ends when the object in the way is moved.
    """
    row, entry = flight.row, flight.entry
    found = RowFailure(
        custom_id=row.custom_id,
        inputs=tuple(redact_url(item.url) for item in row.request.inputs),
        digest=row.digest,
        job_id=job_id,
        failure=failure,
        failed_at=datetime.now(UTC),
    )
    if failure.code == errors.OutputConflict.code:
        return replace(make_failure(found, None), is_kept=False)
    outcome = make_failure(found, output.write_failure(found))
    if entry is None:
        return outcome
    # The result of another request stays.
    kept = outcome.entry._replace(
        result=entry.result, result_digest=entry.result_digest, result_job_id=entry.result_job_id
    )
    return replace(outcome, entry=kept)


def _unexplained_failure(job: Job) -> Failure:
    return Failure(code=job.state, message=f"the job ended as {job.state}", attempt=job.attempt)
