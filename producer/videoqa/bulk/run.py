"""Run: rows become jobs, a bounded number at a time, and final jobs become lines.

    take rows -> submit them -> poll the open jobs -> collect their results from OUTPUT

A row is done if OUTPUT has its result; Redis only carries jobs. A row whose result or failure lies
in OUTPUT is read and not submitted. A job whose record is gone is looked for there, and submitted
again if it left nothing. While Redis is away or the queue is full the run waits, and reports that.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

from videoqa import errors
from videoqa.bulk.formats import FORMATS, Format
from videoqa.bulk.in_flight import InFlightRow, collect_result, collect_stored, record_failure
from videoqa.bulk.manifest import Manifest, Row
from videoqa.bulk.manifest_files import object_name
from videoqa.bulk.output_dir import OutputDir
from videoqa.bulk.progress import ProgressReporter, RowCounts
from videoqa.bulk.records import ResultLine
from videoqa.bulk.result_table import ResultTable
from videoqa.bulk.row_index import RowIndex
from videoqa.bulk.subtitle_files import SubtitleFormat
from videoqa.client import Client
from videoqa.contract import Failure, Job

__all__ = ["Options", "run_manifest"]

PAUSE_S = 1.0
"""Pause after Redis did not answer or the queue was full."""
SHOWN = 20
"""Failures that are reported one by one."""
_OUTPUT_CODES = frozenset({errors.OutputDenied.code, errors.OutputNotFound.code})


@dataclass(frozen=True)
class Options:
    """Settings of a run beside its rows."""

    in_flight: int = 64
    """Rows that are jobs at the same time: enough for the slots of four workers."""
    order: Literal["completion", "input"] = "completion"
    """Order of the lines in results.jsonl; `input` writes them at the end."""
    formats: tuple[str, ...] = ()
    """Names of `FORMATS`; tables that OUTPUT has already are written in any case."""
    subtitles: SubtitleFormat | None = None
    retry_failed: bool = False
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
        formats = _find_formats(output, options)
        with output.lock(), ResultTable(output, index, formats) as table:
            index.add_results(output.list_results())
            index.add_failures(output.list_failures())
            with progress or ProgressReporter(quiet=True) as shown:
                run = _Run(client, manifest, output, options, index, table, counts, shown)
                try:
                    run.run()
                finally:
                    table.publish()
            table.publish(by_number=options.order == "input")
    counts.seconds = time.monotonic() - begun_s
    return counts


def _find_formats(output: OutputDir, options: Options) -> list[Format]:
    """Returns the tables to write: those that were asked for, and those that OUTPUT has already.

    Raises:
        ConfigurationError: the library of one is not installed.
    """
    found = [
        each
        for name, each in FORMATS.items()
        if name in options.formats or output.has_file(each.file_name)
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
        index: RowIndex,
        table: ResultTable,
        counts: RowCounts,
        progress: ProgressReporter,
    ) -> None:
        self._client, self._output, self._options = client, output, options
        self._index, self._table = index, table
        self._counts, self._progress = counts, progress
        self._rows: Iterator[Row] | None = manifest.rows()
        self._waiting: deque[InFlightRow] = deque()
        self._open: dict[str, InFlightRow] = {}
        """Submitted rows by the ids of their jobs."""
        self._collecting: dict[Future[ResultLine | None], InFlightRow] = {}
        self._collect_result = partial(
            collect_result, client=client, output=output, subtitles=options.subtitles,
            retry_failed=options.retry_failed,
        )  # fmt: skip
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
            self._adopt_stored()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _adopt_stored(self) -> None:
        """Adds the lines of stored rows that have none: their run was killed, or the file was lost."""
        collect = partial(collect_stored, self._output)
        for names in _split(self._index.list_without_line(), 4 * self._options.readers):
            for line in self._pool.map(collect, names):
                if line is not None:
                    self._table.add(line)

    # -- rows to jobs

    def _take_rows(self) -> None:
        """Reads rows from the manifest until enough are in flight."""
        while (
            self._rows is not None
            and len(self._open) + len(self._waiting) < self._options.in_flight
            and len(self._collecting) < 4 * self._options.readers
        ):
            row = next(self._rows, None)
            if row is None:
                self._rows = None
                return
            stored = self._index.find_stored(object_name(row.custom_id))
            flight = InFlightRow(row, stored=stored)
            if stored.result or (stored.failure and not self._options.retry_failed):
                self._start_collecting(flight)
            else:
                self._waiting.append(flight)

    def _submit_waiting(self) -> None:
        while (
            self._waiting
            and len(self._open) < self._options.in_flight
            and time.monotonic() >= self._paused_until_s
        ):
            flight = self._waiting[0]
            try:
                job = self._client.submit(flight.request(self._output))
                self._reached_redis = flight.submitted = True
                self._reopen_failed(flight, job)
            except errors.IdempotencyConflict:  # an older release spelled this request otherwise
                flight.number += 1
                continue
            except errors.RequestError as error:
                self._finish_refused(self._waiting.popleft(), error)
                continue
            except errors.QueueFull as error:
                self._pause(f"waiting for room in the queue: {error.message}")
                return
            except errors.RedisUnavailable as error:
                if not self._reached_redis:
                    raise
                self._pause(f"waiting for Redis: {error.message}")
                return
            self._waiting.popleft()
            self._open[job.id] = flight
            if job.waiting_for and job.waiting_for.startswith("no running worker"):
                self._progress.note(f"{job.waiting_for}; the jobs wait for one")

    def _reopen_failed(self, flight: InFlightRow, job: Job) -> None:
        """Retries a job that an earlier run submitted under the same key and that failed."""
        if not job.final or job.state == "succeeded" or flight.reopened:
            return
        codes = _OUTPUT_CODES | {errors.OutputConflict.code}
        output_failed = job.failure is not None and job.failure.code in codes
        if self._options.retry_failed or output_failed:
            with suppress(errors.NotRetryable):  # another run was faster
                self._client.retry(job.id)
            flight.reopened = True

    def _finish_refused(self, flight: InFlightRow, error: errors.RequestError) -> None:
        failure = Failure(code=error.code, message=error.message, attempt=0, param=error.param)
        self._finish(flight, record_failure(self._output, flight.row, None, failure))

    def _pause(self, why: str) -> None:
        self._progress.note(why)
        self._paused_until_s = time.monotonic() + PAUSE_S

    # -- jobs to lines

    def _poll_open(self) -> None:
        """Reads the states of all open jobs, every `poll_s`."""
        now_s = time.monotonic()
        if now_s < max(self._poll_at_s, self._paused_until_s) or not self._open:
            return
        self._poll_at_s = now_s + self._options.poll_s
        ids = list(self._open)
        try:
            jobs = self._client.get_many(ids)
        except errors.RedisUnavailable as error:
            self._pause(f"waiting for Redis: {error.message}")
            return
        for job_id, job in zip(ids, jobs, strict=True):
            if job is None or job.final:
                flight = self._open.pop(job_id)
                flight.job = job
                self._check_output(job)
                self._start_collecting(flight)

    def _check_output(self, job: Job | None) -> None:
        """Ends the run if a worker can't write into OUTPUT: it could not for any other row."""
        if job is not None and job.failure is not None and job.failure.code in _OUTPUT_CODES:
            kind = errors.REGISTRY[job.failure.code]
            raise kind(
                f"workers can't write into {self._output.url}: {job.failure.message}; correct that "
                "and run the same command again",
                param="output",
            )

    def _start_collecting(self, flight: InFlightRow) -> None:
        self._collecting[self._pool.submit(self._collect_result, flight)] = flight

    def _collect(self) -> None:
        """Waits briefly for results that are being read; this is also the pause of the loop."""
        rest_s = min(self._options.poll_s, PAUSE_S) / 5
        if not self._collecting:
            if self._open or self._waiting:
                time.sleep(rest_s)
            return
        ended, _ = wait(self._collecting, timeout=rest_s, return_when=FIRST_COMPLETED)
        for future in ended:
            flight = self._collecting.pop(future)
            line = future.result()
            if line is None:
                self._waiting.append(flight)
            else:
                self._finish(flight, line)

    def _finish(self, flight: InFlightRow, line: ResultLine) -> None:
        """Writes the row's line and counts it."""
        self._table.add(line)
        if not line.ok:
            self._counts.failed += 1
            self._report_failure(line)
        elif flight.submitted:
            self._counts.done += 1
        else:
            self._counts.skipped += 1

    def _report_failure(self, line: ResultLine) -> None:
        error = line.error
        if self._counts.failed <= SHOWN and error is not None:
            self._progress.note(f"{line.custom_id}: {error.message} ({error.code})")
        elif self._counts.failed == SHOWN + 1:
            self._progress.note("more rows failed; results.jsonl has all of them")


def _split(items: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(items, size)):
        yield chunk
