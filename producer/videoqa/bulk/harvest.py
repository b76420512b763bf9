"""Harvest: what a row has in OUTPUT, or what its ended job leaves there.

Runs in several threads, since a store takes its time. A result object outlives all else: it is
looked for first, whatever the job's record says. Knows the client only to read a result that is in Redis alone.
"""

from __future__ import annotations

from contextlib import suppress

from videoqa import errors
from videoqa.bulk.flight import Flight
from videoqa.bulk.options import Options
from videoqa.bulk.place import Place
from videoqa.bulk.subtitles import write_subtitles
from videoqa.bulk.written import ResultLine, RowFailure, failed_line, result_line
from videoqa.client import Client
from videoqa.contract import Failure, Job, Result

__all__ = ["Harvest"]


class Harvest:
    """Thread-safe."""

    def __init__(self, client: Client, place: Place, options: Options) -> None:
        self._client, self._place, self._options = client, place, options

    def outcome(self, flight: Flight) -> ResultLine | None:
        """The row's line, or None if the row has to be submitted (again)."""
        row, job = flight.row, flight.job
        flight.job = None
        result = self._place.read_result(row)
        if result is None and job is not None and job.state == "succeeded":
            result = self._only_in_redis(flight, job)
        if result is not None:
            return self._succeeded(flight, result)
        if job is not None and job.state != "succeeded":
            return self.failed(flight, job, job.failure or _unexplained(job))
        if not flight.submitted and not self._options.retry_failed:
            failure = self._place.read_failure(row)
            return failed_line(failure) if failure is not None else None
        return None

    def _only_in_redis(self, flight: Flight, job: Job) -> Result | None:
        """Somebody emptied OUTPUT: the record may have the result, else another job has to."""
        with suppress(errors.LookupFailed, errors.OutputError):
            result = self._client.result(job.id)
            self._place.write_result(flight.row, result)
            return result
        flight.number += 1
        return None

    def _succeeded(self, flight: Flight, result: Result) -> ResultLine:
        row, kind = flight.row, self._options.subtitles
        if flight.submitted and (flight.known or flight.reopened or self._options.retry_failed):
            self._place.forget_failure(row.custom_id)
        subtitles = write_subtitles(row, result, kind, self._place) if kind else ()
        url = self._place.result_url(row.custom_id)
        return result_line(row.custom_id, url, result, subtitles)

    def failed(self, flight: Flight, job: Job | None, failure: Failure) -> ResultLine:
        """Leaves word for later runs, which then do not try the row again."""
        row = flight.row
        found = RowFailure(
            custom_id=row.custom_id,
            digest=row.digest,
            job_id=job.id if job else None,
            failure=failure,
        )
        self._place.write_failure(found)
        return failed_line(found)


def _unexplained(job: Job) -> Failure:
    return Failure(code=job.state, message=f"the job is {job.state}", attempt=job.attempt)
