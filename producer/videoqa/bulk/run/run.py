"""Run: the rows of a manifest become jobs, by `JobLoop`, and final jobs become lines.

A row is done if OUTPUT has its result; Redis only carries jobs. The index of OUTPUT and its listing
tell which rows those are. A job whose record is gone is looked for there, and submitted again if it
left nothing.
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from videoqa import errors
from videoqa.bulk.index.row_index import RowIndex
from videoqa.bulk.manifest.manifest import Manifest, Row
from videoqa.bulk.output.formats import FORMATS, Table
from videoqa.bulk.output.outcomes import Outcome
from videoqa.bulk.output.output_dir import OutputDir
from videoqa.bulk.output.result_table import ResultTable
from videoqa.bulk.output.stored_rows import load_stored_rows
from videoqa.bulk.output.subtitle_files import Subtitles
from videoqa.bulk.run.announcer import (
    HTTP_EVERY_S,
    REDIS_EVERY_S,
    RunAnnouncer,
    RunProgress,
)
from videoqa.bulk.run.fleet_limit import FleetLimit
from videoqa.bulk.run.in_flight import InFlightRow, collect_result, record_failure
from videoqa.bulk.run.job_loop import JobLoop
from videoqa.bulk.run.progress import ProgressReporter, RowCounts
from videoqa.bulk.run.row_plan import Planner, RowPlan, WhereState
from videoqa.client import Client
from videoqa.contract import Failure, Job, RunReport, redact_url
from videoqa.login import name_shell_user

__all__ = ["Options", "make_planner", "run_manifest"]

INTERRUPTED = "interrupted; the same command continues it"
SHOWN = 20
"""Failures that are reported one by one."""
TAKEN = 1000
"""Rows that are taken from the manifest between two looks at the open jobs."""
_REQUEST_NUMBER = re.compile(r"^requests\.(\d+)\.?")
_OUTPUT_CODES = frozenset({errors.OutputDenied.code, errors.OutputNotFound.code})


@dataclass(frozen=True)
class Options:
    """Settings of a run beside its rows."""

    in_flight: int | None = None
    """Rows that are jobs at the same time; None: twice the slots of the workers."""
    order: Literal["completion", "input"] = "completion"
    """Order of the lines in results.jsonl; `input` sorts this run's rows at its end."""
    formats: tuple[str, ...] = ()
    """Names of `FORMATS`; tables that OUTPUT has already are written in any case."""
    subtitles: Subtitles | None = None
    retry_failed: bool = False
    where: tuple[WhereState, ...] = ()
    """States of the rows to ask; none: all that have no result."""
    poll_s: float = 0.25
    """Time between two polls of the open jobs."""
    readers: int = 16
    """Results that are read at the same time: a store takes tens of milliseconds for each."""


def run_manifest(
    client: Client,
    manifest: Manifest,
    output: OutputDir,
    options: Options | None = None,
    progress: ProgressReporter | None = None,
) -> RowCounts:
    """Answers all rows that have no result yet; returns their numbers by outcome.

    May be interrupted and called again with the same arguments, from any host. Rows of earlier
    runs that are not in this manifest keep their lines and objects.

    Raises:
        ManifestRefused: lines are wrong; nothing was submitted.
        OutputDenied, OutputNotFound, OutputUnavailable: OUTPUT can't be written, by this process
            or by workers; jobs in flight continue.
        RedisUnavailable: it did not answer at the first submission.
        ConfigurationError: pyarrow is needed and not installed.
    """
    options = options or Options()
    begun_s = time.monotonic()
    with RowIndex() as index:
        counts = RowCounts(total=manifest.check(index))
        tables = _find_tables(output, options)
        with (
            output.lock(),
            ResultTable(output, index, tables) as table,
            progress or ProgressReporter(quiet=True) as shown,
        ):
            seed = output.write_root(manifest.root.url)
            _check_case(output, index)
            with _announce(client, manifest, output, seed, counts) as announcer:
                load_stored_rows(output, index, table, readers=options.readers, note=shown.note)
                planner = make_planner(index, options)
                try:
                    _Run(
                        client, manifest, output, options, planner, table, counts, shown, announcer
                    ).run()
                except BaseException:
                    table.publish()
                    raise
                table.publish(by_number=options.order == "input")
    counts.seconds = time.monotonic() - begun_s
    return counts


@contextmanager
def _announce(
    client: Client, manifest: Manifest, output: OutputDir, seed: str, counts: RowCounts
) -> Iterator[RunAnnouncer]:
    """Announces the run to the fleet while the block lasts, and its end by the way in which the block ends."""
    is_http = client.settings.url is not None
    about = RunReport(
        id=_make_run_id(seed, output.url, client.settings.tenant),
        kind="caption",
        name=manifest.describe_sources()[:200],
        output=redact_url(output.url)[:2048],
        tenant=client.settings.tenant or manifest.tenant,
        who=name_shell_user()[:200],
        host=socket.gethostname()[:200],
    )
    announcer = RunAnnouncer(client, about, every_s=HTTP_EVERY_S if is_http else REDIS_EVERY_S)
    announcer.update(RunProgress(total=counts.total))
    try:
        yield announcer
    except errors.VideoQAError as error:
        announcer.close("failed", f"{error.message} ({error.code})")
        raise
    except BaseException as error:
        is_broken = isinstance(error, Exception)
        why = f"{type(error).__name__}: {error}" if is_broken else INTERRUPTED
        announcer.close("failed" if is_broken else "interrupted", why)
        raise
    announcer.close("finished")


def _make_run_id(seed: str, url: str, tenant: str | None) -> str:
    """Makes the id that all runs into one output share; a copy of the output elsewhere has another one."""
    text = "\n".join((seed, url, tenant or ""))
    return "run_" + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:24]


def _check_case(output: OutputDir, index: RowIndex) -> None:
    """Refuses rows whose objects would be one file."""
    places = index.find_alike() if output.ignores_case() else None
    if places is not None:
        raise errors.ManifestRefused(
            f"{places[0]} and {places[1]} have names that differ in case only, which are one file in "
            f"{output.folder}; name another output, or give each line its own custom_id",
            param="source",
        )


def make_planner(index: RowIndex, options: Options) -> Planner:
    """Makes the planner of a run, once `load_stored_rows` has filled the index."""
    return Planner(
        index, retry_failed=options.retry_failed, where=options.where, subtitles=options.subtitles
    )


def _find_tables(output: OutputDir, options: Options) -> list[Table]:
    """Returns the tables to write: of formats that were asked for, and those that OUTPUT has already.

    Raises:
        ConfigurationError: the library of one is not installed.
    """
    found = [
        each
        for name, tables in FORMATS.items()
        for each in tables
        if name in options.formats or output.file_version(each.file_name) is not None
    ]
    for each in found:
        each.check()
    return found


class _Run(JobLoop[InFlightRow, Outcome]):
    """The loop of one run, and the rows in it."""

    def __init__(
        self,
        client: Client,
        manifest: Manifest,
        output: OutputDir,
        options: Options,
        planner: Planner,
        table: ResultTable,
        counts: RowCounts,
        progress: ProgressReporter,
        announcer: RunAnnouncer,
    ) -> None:
        super().__init__(
            client,
            FleetLimit(client, options.in_flight),
            poll_s=options.poll_s,
            readers=options.readers,
        )
        self._client, self._output, self._options = client, output, options
        self._planner, self._table = planner, table
        self._counts, self._progress = counts, progress
        self._announcer = announcer
        self._rows: Iterator[Row] = manifest.rows()
        self._reached_redis = False
        """True once Redis has answered: from then on its absence is waited out."""

    def _after_round(self) -> None:
        self._table.publish_due()
        self._progress.update(self._counts, len(self._open))
        counts = self._counts
        self._announcer.update(
            RunProgress(counts.total, counts.done, counts.failed, counts.skipped, len(self._open))
        )
        if self._may_submit() and self._limit.has_workers:
            self._announcer.note(None)

    def _note(self, text: str) -> None:
        self._progress.note(text)
        self._announcer.note(text)

    # -- rows to jobs

    def _take_rows(self) -> None:
        """Reads rows from the manifest until enough are in flight."""
        to_read: list[InFlightRow] = []
        limit = self._limit.read()
        for _ in range(TAKEN):
            if (
                not self._has_more
                or len(self._open) + len(self._waiting) >= limit
                or self._count_collecting() + len(to_read) >= self._most_collecting
            ):
                break
            row = next(self._rows, None)
            if row is None:
                self._has_more = False
                break
            plan = self._planner.plan(row)
            if plan.is_asked:
                self._limit.add(row.request)
                self._waiting.append(InFlightRow(row, plan.entry))
            elif plan.is_read:
                to_read.append(InFlightRow(row, plan.entry))
            else:
                self._count_known(row, plan)
        self._start_collecting(to_read)

    def _count_known(self, row: Row, plan: RowPlan) -> None:
        """Counts a row whose outcome stays as it is."""
        entry = plan.entry
        if plan.is_left_out:
            self._counts.total -= 1
            self._counts.left_out += 1
        elif entry is not None and entry.code is not None:
            self._count_failure(row.custom_id, entry.message or "", entry.code, entry.job_id)
        else:
            self._counts.skipped += 1

    def _submit_rows(
        self, flights: Sequence[InFlightRow]
    ) -> Sequence[Job | errors.VideoQAError | None]:
        refused: Mapping[int, errors.VideoQAError] = {}
        try:
            jobs: Sequence[Job | None] = self._client.submit_many(
                flight.request(self._output, sets_output=self._client.sets_output)
                for flight in flights
            )
        except errors.SubmittedInPart as error:
            refused = error.refused
            jobs = self._get_jobs(error.job_ids)
        except errors.RequestError as error:  # nothing was recorded
            refused, jobs = {_parse_number(error): error}, [None] * len(flights)
        self._reached_redis = True
        return [job or refused.get(number) for number, job in enumerate(jobs)]

    def _get_jobs(self, job_ids: Sequence[str | None]) -> Sequence[Job | None]:
        """Reads the jobs of a batch that was refused in part; None: refused, or not to be read now."""
        known = [job_id for job_id in job_ids if job_id is not None]
        try:
            found = dict(zip(known, self._client.get_many(known), strict=True)) if known else {}
        except errors.Unavailable:  # by its idempotency key each row finds its job again
            found = {}
        return [found.get(job_id) if job_id else None for job_id in job_ids]

    def _refuse(self, flight: InFlightRow, error: errors.VideoQAError) -> Outcome | None:
        if not isinstance(error, errors.RequestError | errors.GatewayError) or error.retryable:
            return None
        param = _REQUEST_NUMBER.sub("", error.param or "") or None
        failure = Failure(code=error.code, message=error.message, attempt=0, param=param)
        return record_failure(self._output, flight, None, failure)

    def _wait_for_server(self, error: errors.VideoQAError) -> None:
        if not self._reached_redis:
            raise error
        super()._wait_for_server(error)

    def _reopen(self, flight: InFlightRow, job: Job) -> None:
        """Retries a job that an earlier run submitted under the same key and that failed."""
        if not job.final or job.state == "succeeded" or flight.reopened:
            return
        codes = _OUTPUT_CODES | {errors.OutputConflict.code}
        output_failed = job.failure is not None and job.failure.code in codes
        if self._planner.retries_failed or output_failed:
            with suppress(errors.NotRetryable):  # another run was faster
                self._client.retry(job.id)
            flight.reopened = True

    # -- jobs to lines

    def _check_ended(self, job: Job | None) -> None:
        """Ends the run if a worker can't write into OUTPUT: it could not for any other row."""
        if job is not None and job.failure is not None and job.failure.code in _OUTPUT_CODES:
            kind = errors.REGISTRY[job.failure.code]
            raise kind(
                f"workers can't write into {self._output.url}: {job.failure.message}; correct that "
                "and run the same command again",
                param="output",
            )

    def _collect_result(self, flight: InFlightRow) -> Outcome | None:
        return collect_result(
            flight,
            client=self._client,
            output=self._output,
            subtitles=self._options.subtitles,
        )

    def _finish(self, flight: InFlightRow, outcome: Outcome) -> None:
        """Writes the row's line and counts it."""
        line = outcome.line
        self._table.add(outcome)
        if line.error is not None:
            self._count_failure(line.custom_id, line.error.message, line.error.code, flight.job_id)
        elif flight.job_id is not None:
            self._counts.done += 1
        else:
            self._counts.skipped += 1

    def _count_failure(
        self, custom_id: str, message: str, code: str, job_id: str | None = None
    ) -> None:
        self._counts.failed += 1
        self._announcer.note_failure(code, custom_id, message, job_id)
        if self._counts.failed <= SHOWN:
            self._progress.note(f"{custom_id}: {message} ({code})")
        elif self._counts.failed == SHOWN + 1:
            self._progress.note("more rows failed; results.jsonl has all of them")


def _parse_number(error: errors.RequestError) -> int:
    """Returns the number of the request that `submit_many` refused."""
    found = _REQUEST_NUMBER.match(error.param or "")
    if found is None:
        raise error
    return int(found[1])
