"""The run: rows become jobs, a bounded number at a time, and ended jobs become lines.

    take rows -> submit them -> look at the open jobs -> collect what they left in OUTPUT

What is done is what lies in OUTPUT; Redis only carries. A row whose result or failure lies there is
read and not submitted; a job whose record is gone is looked for there, and submitted again if it
left nothing. Redis or the queue's room may go away in between: then the run waits, and says so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from videoqa import errors
from videoqa.bulk.flight import Flight
from videoqa.bulk.harvest import Harvest
from videoqa.bulk.journal import Journal
from videoqa.bulk.manifest import Manifest, Row
from videoqa.bulk.options import Options
from videoqa.bulk.parquet import need_parquet, write_parquet
from videoqa.bulk.place import Place
from videoqa.bulk.progress import Tally, Watcher
from videoqa.bulk.scratch import Scratch
from videoqa.bulk.written import ResultLine
from videoqa.client import Client
from videoqa.contract import Failure, Job

__all__ = ["run"]

PAUSE_S = 1.0
"""After Redis did not answer or the queue was full."""
TOLD = 20
"""Failures that are told one by one."""
_OF_OUTPUT = frozenset({errors.OutputDenied.code, errors.OutputNotFound.code})


def run(
    client: Client,
    manifest: Manifest,
    place: Place,
    options: Options | None = None,
    watcher: Watcher | None = None,
) -> Tally:
    """Answers all rows that are not answered yet; returns what became of them.

    May be interrupted and called again with the same arguments, from any host. Answers of rows
    that are not in the manifest any more stay in OUTPUT and are no lines of results.jsonl.

    Raises:
        ManifestRefused: lines are wrong; nothing was submitted.
        OutputDenied, OutputNotFound, OutputUnavailable: OUTPUT can't be written, by this process
            or by workers; what is in flight goes on.
        RedisUnavailable: it did not answer at the first submit.
        ConfigurationError: pyarrow is needed and not installed.
    """
    options = options or Options()
    begun_s = time.monotonic()
    if options.parquet:
        need_parquet()
    with Scratch() as scratch:
        tally = Tally(total=manifest.check(scratch))
        with place.locked(), Journal(place, scratch, in_order=options.order == "input") as journal:
            scratch.put_there(place.names(options.retry_failed))
            with watcher or Watcher(quiet=True) as shown:
                _Run(client, manifest, place, options, scratch, journal, tally, shown).go()
            journal.publish()
            if options.parquet:
                write_parquet(journal, place)
    tally.seconds = time.monotonic() - begun_s
    return tally


class _Run:
    def __init__(
        self,
        client: Client,
        manifest: Manifest,
        place: Place,
        options: Options,
        scratch: Scratch,
        journal: Journal,
        tally: Tally,
        watcher: Watcher,
    ) -> None:
        self._client, self._place, self._options = client, place, options
        self._scratch, self._journal = scratch, journal
        self._tally, self._watcher = tally, watcher
        self._rows: Iterator[Row] | None = manifest.rows()
        self._waiting: deque[Flight] = deque()
        self._open: dict[str, Flight] = {}
        self._reading: dict[Future[ResultLine | None], Flight] = {}
        self._harvest = Harvest(client, place, options)
        self._pool = ThreadPoolExecutor(options.readers, thread_name_prefix="caption")
        self._paused_until_s = 0.0
        self._look_at_s = 0.0
        self._reached = False
        """Redis answered once: from now on its absence is waited out."""

    def go(self) -> None:
        try:
            while self._rows is not None or self._waiting or self._open or self._reading:
                self._take()
                self._submit()
                self._look()
                self._collect()
                self._watcher.update(self._tally, len(self._open))
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    # -- rows in

    def _take(self) -> None:
        """Rows, as long as there is room for them."""
        while (
            self._rows is not None
            and len(self._open) + len(self._waiting) < self._options.in_flight
            and len(self._reading) < 4 * self._options.readers
        ):
            row = next(self._rows, None)
            if row is None:
                self._rows = None
            elif self._scratch.is_there(self._place.name(row.custom_id)):
                self._read(Flight(row, known=True))
            else:
                self._waiting.append(Flight(row))

    def _submit(self) -> None:
        while (
            self._waiting
            and len(self._open) < self._options.in_flight
            and time.monotonic() >= self._paused_until_s
        ):
            flight = self._waiting[0]
            try:
                job = self._client.submit(flight.request(self._place))
                self._reached = flight.submitted = True
                self._reopen(flight, job)
            except errors.IdempotencyConflict:  # an older release spelled this request otherwise
                flight.number += 1
                continue
            except errors.RequestError as error:
                self._refused(self._waiting.popleft(), error)
                continue
            except errors.QueueFull as error:
                self._pause(f"waiting for room in the queue: {error.message}")
                return
            except errors.RedisUnavailable as error:
                if not self._reached:
                    raise
                self._pause(f"waiting for Redis: {error.message}")
                return
            self._waiting.popleft()
            self._open[job.id] = flight
            if job.waiting_for and job.waiting_for.startswith("no running worker"):
                self._watcher.note(f"{job.waiting_for}; the jobs wait")

    def _reopen(self, flight: Flight, job: Job) -> None:
        """The key may belong to a job that ended badly, under an earlier run."""
        if not job.final or job.state == "succeeded" or flight.reopened:
            return
        of_output = job.failure is not None and job.failure.code in _OF_OUTPUT
        if self._options.retry_failed or of_output:
            with suppress(errors.NotRetryable):  # another run was faster
                self._client.retry(job.id)
            flight.reopened = True

    def _refused(self, flight: Flight, error: errors.RequestError) -> None:
        failure = Failure(code=error.code, message=error.message, attempt=0, param=error.param)
        self._settle(flight, self._harvest.failed(flight, None, failure))

    def _pause(self, why: str) -> None:
        self._watcher.note(why)
        self._paused_until_s = time.monotonic() + PAUSE_S

    # -- jobs that end

    def _look(self) -> None:
        """At all open jobs, every `poll_s`."""
        now_s = time.monotonic()
        if now_s < max(self._look_at_s, self._paused_until_s) or not self._open:
            return
        self._look_at_s = now_s + self._options.poll_s
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
                self._read(flight)

    def _check_output(self, job: Job | None) -> None:
        """What workers may not write for one row they may not for any."""
        if job is not None and job.failure is not None and job.failure.code in _OF_OUTPUT:
            kind = errors.REGISTRY[job.failure.code]
            raise kind(
                f"workers can't write into {self._place.url}: {job.failure.message}; correct it and "
                "give the same command again",
                param="output",
            )

    def _read(self, flight: Flight) -> None:
        self._reading[self._pool.submit(self._harvest.outcome, flight)] = flight

    def _collect(self) -> None:
        """Waits a moment for what is being read; that is this loop's rest too."""
        rest_s = min(self._options.poll_s, PAUSE_S) / 5
        if not self._reading:
            if self._open or self._waiting:
                time.sleep(rest_s)
            return
        ended, _ = wait(self._reading, timeout=rest_s, return_when=FIRST_COMPLETED)
        for future in ended:
            flight = self._reading.pop(future)
            line = future.result()
            if line is None:
                self._waiting.append(flight)
            else:
                self._settle(flight, line)

    def _settle(self, flight: Flight, line: ResultLine) -> None:
        """A row has its line."""
        self._journal.add(flight.row.number, line)
        if not line.ok:
            self._tally.failed += 1
            self._tell(line)
        elif flight.submitted:
            self._tally.done += 1
        else:
            self._tally.skipped += 1

    def _tell(self, line: ResultLine) -> None:
        error = line.error
        if self._tally.failed <= TOLD and error is not None:
            self._watcher.note(f"{line.custom_id}: {error.message} ({error.code})")
        elif self._tally.failed == TOLD + 1:
            self._watcher.note("more rows failed; results.jsonl has them all")
