"""Run: rows become jobs, a bounded number at a time, and final jobs become lines.

    take rows -> submit them -> poll the open jobs -> collect their results from OUTPUT

A row is done if OUTPUT has its result; Redis only carries jobs. The index of OUTPUT and its listing
tell which rows those are. A job whose record is gone is looked for there, and submitted again if it
left nothing. While Redis is away or the queue is full the run waits, and reports that.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
from videoqa.bulk.run.fleet_limit import FleetLimit
from videoqa.bulk.run.in_flight import InFlightRow, collect_result, record_failure
from videoqa.bulk.run.progress import ProgressReporter, RowCounts
from videoqa.bulk.run.row_plan import Planner, RowPlan, WhereState
from videoqa.client import Client
from videoqa.contract import FINAL_STATES, Failure, Job

__all__ = ["Options", "make_planner", "run_manifest"]

PAUSE_S = 1.0
"""Pause after Redis did not answer or the queue was full."""
SHOWN = 20
"""Failures that are reported one by one."""
BATCH = 500
"""Rows that are submitted in one round trip."""
TAKEN = 1000
"""Rows that are taken from the manifest between two looks at the open jobs."""
COLLECTED = 16
"""Results that one thread reads in a row."""
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
            output.write_root(manifest.root.url)
            _check_case(output, index)
            load_stored_rows(output, index, table, readers=options.readers, note=shown.note)
            planner = make_planner(index, options)
            try:
                _Run(client, manifest, output, options, planner, table, counts, shown).run()
            except BaseException:
                table.publish()
                raise
            table.publish(by_number=options.order == "input")
    counts.seconds = time.monotonic() - begun_s
    return counts


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


class _Run:
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
    ) -> None:
        self._client, self._output, self._options = client, output, options
        self._planner, self._table = planner, table
        self._counts, self._progress = counts, progress
        self._rows: Iterator[Row] | None = manifest.rows()
        self._limit = FleetLimit(client, options.in_flight)
        self._waiting: deque[InFlightRow] = deque()
        self._open: dict[str, InFlightRow] = {}
        """Submitted rows by the ids of their jobs."""
        self._collecting: dict[Future[list[Outcome | None]], list[InFlightRow]] = {}
        self._collect_result = partial(
            collect_result, client=client, output=output, subtitles=options.subtitles
        )
        self._pool = ThreadPoolExecutor(options.readers, thread_name_prefix="caption")
        self._paused_until_s = 0.0
        self._poll_at_s = 0.0
        self._reached_redis = False
        """True once Redis has answered: from then on its absence is waited out."""

    def run(self) -> None:
        try:
            while self._rows is not None or self._waiting or self._open or self._collecting:
                self._take_rows()
                self._submit_waiting()
                self._poll_open()
                self._collect()
                self._table.publish_due()
                self._progress.update(self._counts, len(self._open))
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    # -- rows to jobs

    def _take_rows(self) -> None:
        """Reads rows from the manifest until enough are in flight."""
        to_read: list[InFlightRow] = []
        limit = self._limit.read()
        for _ in range(TAKEN):
            if (
                self._rows is None
                or len(self._open) + len(self._waiting) >= limit
                or self._count_collecting() + len(to_read) >= self._most_collecting
            ):
                break
            row = next(self._rows, None)
            if row is None:
                self._rows = None
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
            self._count_failure(row.custom_id, entry.message or "", entry.code)
        else:
            self._counts.skipped += 1

    def _submit_waiting(self) -> None:
        while (
            self._waiting
            and len(self._open) < self._limit.read()
            and time.monotonic() >= self._paused_until_s
        ):
            room = min(BATCH, self._limit.read() - len(self._open), len(self._waiting))
            self._submit([self._waiting.popleft() for _ in range(room)])
            if not self._limit.has_workers:
                self._progress.note(self._limit.describe_missing())

    def _submit(self, flights: Sequence[InFlightRow]) -> None:
        """Submits rows; those that cannot be submitted now wait again, in front."""
        refused: Mapping[int, errors.VideoQAError] = {}
        try:
            jobs: Sequence[Job | None] = self._client.submit_many(
                flight.request(self._output) for flight in flights
            )
        except errors.SubmittedInPart as error:
            refused = error.refused
            jobs = self._get_jobs(error.job_ids)
        except errors.RequestError as error:  # nothing was recorded
            refused, jobs = {_parse_number(error): error}, [None] * len(flights)
        except errors.RedisUnavailable as error:
            self._waiting.extendleft(reversed(flights))
            if not self._reached_redis:
                raise
            self._pause(f"waiting for Redis: {error.message}")
            return
        self._reached_redis = True
        again: list[InFlightRow] = []
        for number, (flight, job) in enumerate(zip(flights, jobs, strict=True)):
            if job is None or not self._open_job(flight, job):
                again += self._refuse(flight, refused.get(number))
        self._waiting.extendleft(reversed(again))

    def _get_jobs(self, job_ids: Sequence[str | None]) -> Sequence[Job | None]:
        """Reads the jobs of a batch that was refused in part; None: refused, or not to be read now."""
        known = [job_id for job_id in job_ids if job_id is not None]
        try:
            found = dict(zip(known, self._client.get_many(known), strict=True)) if known else {}
        except errors.RedisUnavailable:  # by its idempotency key each row finds its job again
            found = {}
        return [found.get(job_id) if job_id else None for job_id in job_ids]

    def _refuse(self, flight: InFlightRow, error: errors.VideoQAError | None) -> list[InFlightRow]:
        """Handles a row that was not submitted; returns it if it is to be submitted again."""
        match error:
            case errors.IdempotencyConflict() | errors.LookupFailed():
                flight.number += 1  # the job of this key is another one, gone, or unreadable
            case errors.RequestError():
                param = _REQUEST_NUMBER.sub("", error.param or "") or None
                failure = Failure(code=error.code, message=error.message, attempt=0, param=param)
                self._finish(flight, record_failure(self._output, flight, None, failure))
                return []
            case errors.QueueFull():
                self._pause(f"waiting for room in the queue: {error.message}")
            case errors.RedisUnavailable():
                self._pause(f"waiting for Redis: {error.message}")
        return [flight]

    def _open_job(self, flight: InFlightRow, job: Job) -> bool:
        """Opens a submitted row; returns False if its failed job has to be retried and cannot be now."""
        try:
            self._reopen_failed(flight, job)
        except errors.RedisUnavailable as error:
            self._pause(f"waiting for Redis: {error.message}")
            return False
        flight.job_id = job.id
        self._open[job.id] = flight
        return True

    def _reopen_failed(self, flight: InFlightRow, job: Job) -> None:
        """Retries a job that an earlier run submitted under the same key and that failed."""
        if not job.final or job.state == "succeeded" or flight.reopened:
            return
        codes = _OUTPUT_CODES | {errors.OutputConflict.code}
        output_failed = job.failure is not None and job.failure.code in codes
        if self._planner.retries_failed or output_failed:
            with suppress(errors.NotRetryable):  # another run was faster
                self._client.retry(job.id)
            flight.reopened = True

    def _pause(self, why: str) -> None:
        self._progress.note(why)
        self._paused_until_s = time.monotonic() + PAUSE_S

    # -- jobs to lines

    def _poll_open(self) -> None:
        """Reads the states of all open jobs, every `poll_s`; sooner if most had ended at the last poll."""
        now_s = time.monotonic()
        if now_s < max(self._poll_at_s, self._paused_until_s) or not self._open:
            return
        ids = list(self._open)
        try:
            states = self._client.get_states(ids)
            ended = [
                job_id
                for job_id, state in zip(ids, states, strict=True)
                if state is None or state in FINAL_STATES
            ]
            by_id = dict(zip(ids, states, strict=True))
            failed = [job_id for job_id in ended if by_id[job_id] not in (None, "succeeded")]
            jobs = dict(zip(failed, self._client.get_many(failed), strict=True)) if failed else {}
        except errors.RedisUnavailable as error:
            self._pause(f"waiting for Redis: {error.message}")
            return
        if 2 * len(ended) < len(ids):
            self._poll_at_s = now_s + self._options.poll_s
        flights = [self._open.pop(job_id) for job_id in ended]
        for job_id, flight in zip(ended, flights, strict=True):
            flight.state, flight.job = by_id[job_id], jobs.get(job_id)
            self._check_output(flight.job)
        self._start_collecting(flights)

    def _check_output(self, job: Job | None) -> None:
        """Ends the run if a worker can't write into OUTPUT: it could not for any other row."""
        if job is not None and job.failure is not None and job.failure.code in _OUTPUT_CODES:
            kind = errors.REGISTRY[job.failure.code]
            raise kind(
                f"workers can't write into {self._output.url}: {job.failure.message}; correct that "
                "and run the same command again",
                param="output",
            )

    @property
    def _most_collecting(self) -> int:
        return 4 * COLLECTED * self._options.readers

    def _count_collecting(self) -> int:
        return sum(map(len, self._collecting.values()))

    def _start_collecting(self, flights: Sequence[InFlightRow]) -> None:
        size = max(1, min(COLLECTED, len(flights) // self._options.readers))
        for first in range(0, len(flights), size):
            batch = list(flights[first : first + size])
            self._collecting[self._pool.submit(self._collect_batch, batch)] = batch

    def _collect_batch(self, flights: Sequence[InFlightRow]) -> list[Outcome | None]:
        return [self._collect_result(flight) for flight in flights]

    def _collect(self) -> None:
        """Waits briefly for results that are being read; this is also the pause of the loop."""
        rest_s = min(self._options.poll_s, PAUSE_S) / 5
        if not self._collecting:
            if time.monotonic() < max(self._poll_at_s, self._paused_until_s):
                time.sleep(rest_s)
            return
        ended, _ = wait(self._collecting, timeout=rest_s, return_when=FIRST_COMPLETED)
        for future in ended:
            for flight, outcome in zip(self._collecting.pop(future), future.result(), strict=True):
                if outcome is None:
                    self._waiting.append(flight)
                else:
                    self._finish(flight, outcome)

    def _finish(self, flight: InFlightRow, outcome: Outcome) -> None:
        """Writes the row's line and counts it."""
        line = outcome.line
        self._table.add(outcome)
        if line.error is not None:
            self._count_failure(line.custom_id, line.error.message, line.error.code)
        elif flight.job_id is not None:
            self._counts.done += 1
        else:
            self._counts.skipped += 1

    def _count_failure(self, custom_id: str, message: str, code: str) -> None:
        self._counts.failed += 1
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
