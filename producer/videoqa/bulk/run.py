"""Run: an archive's rows become jobs, a bounded number at a time, until each has a result or a failure.

Each row is an ordinary bulk job with an idempotency key of its own, so that a run which is started
again, from any host, finds the jobs that go on and submits none twice. Redis and queues that are full
or away are waited for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any

from videoqa import errors
from videoqa.bulk.manifest import Row
from videoqa.bulk.shelf import Shelf, digest, file_name
from videoqa.client import Client
from videoqa.job import Job

__all__ = ["Run", "Summary"]

LOOK_EVERY_S = 0.3
AWAY_S = 1.0


@dataclass
class Summary:
    """How a run stands."""

    total: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    """Of those: they were so before this run."""
    waiting_for: str = ""
    """What stops all of it now."""


class Run:
    """One run over one manifest."""

    def __init__(
        self,
        client: Client,
        shelf: Shelf,
        defaults: Mapping[str, Any],
        *,
        in_flight: int = 64,
        retry_failed: bool = False,
    ) -> None:
        self._client, self._shelf = client, shelf
        self._defaults = defaults
        self._in_flight = in_flight
        self._retry_failed = retry_failed
        self._open: dict[str, Row] = {}
        """Job id -> its row."""

    def run(self, rows: Iterable[Row], total: int, on_change: Callable[[Summary], None]) -> Summary:
        """Returns when every row has a result or a failure."""
        summary = Summary(total)
        left = self._left(rows, summary)
        more = True
        while more or self._open:
            free = self._in_flight - len(self._open)
            batch = list(islice(left, free)) if free else []
            more = bool(batch) or not free
            self._patiently(summary, on_change, partial(self._submit, batch))
            self._patiently(summary, on_change, partial(self._look, summary))
            on_change(summary)
            if self._open:
                time.sleep(LOOK_EVERY_S)
        return summary

    def _left(self, rows: Iterable[Row], summary: Summary) -> Iterator[Row]:
        """Rows without a result; of those that failed before only if they are to be tried again."""
        results, failures = self._shelf.done("results"), self._shelf.done("failed")
        for row in rows:
            name = digest(file_name(row.custom_id))
            if name in results:
                summary.done += 1
                summary.skipped += 1
            elif name in failures and not self._retry_failed:
                summary.failed += 1
                summary.skipped += 1
            else:
                yield row

    def _patiently(
        self, summary: Summary, on_change: Callable[[Summary], None], call: Callable[[], None]
    ) -> None:
        """Again and again while Redis or the store is away, or the queue full."""
        while True:
            try:
                call()
                summary.waiting_for = ""
                return
            except (errors.RedisUnavailable, errors.QueueFull, errors.OutputUnavailable) as error:
                summary.waiting_for = error.message
                on_change(summary)
                time.sleep(AWAY_S)

    def _submit(self, batch: list[Row]) -> None:
        """All of the batch, or an error; what was submitted before is found again by its key."""
        if not batch:
            return
        requests = [self._fields(row) for row in batch]
        try:
            jobs = self._client.submit_many(requests)
        except errors.SubmittedInPart as error:
            raise next(iter(error.refused.values())) from error
        for row, job in zip(batch, jobs, strict=True):
            self._open[job.id] = row
            if self._retry_failed and job.final and job.state != "succeeded":
                self._client.retry(job.id)

    def _fields(self, row: Row) -> dict[str, Any]:
        fields = {"priority": "bulk", **self._defaults, **row.fields, "custom_id": row.custom_id}
        told = json.dumps([self._shelf.url, fields], sort_keys=True)
        return fields | {"idempotency_key": f"caption-{sha256(told.encode()).hexdigest()}"}

    def _look(self, summary: Summary) -> None:
        """What is final is put on the shelf; what is gone from Redis is submitted again."""
        ids = list(self._open)
        for job_id, job in zip(ids, self._client.get_many(ids), strict=True):
            if job is None:
                self._submit([self._open[job_id]])
                del self._open[job_id]
            elif job.final:
                self._take(job, self._open[job_id], summary)
                del self._open[job_id]

    def _take(self, job: Job, row: Row, summary: Summary) -> None:
        if job.state == "succeeded":
            self._shelf.put_result(row.custom_id, self._client.result(job.id))
            self._shelf.forget_failure(row.custom_id)
            summary.done += 1
        else:
            self._shelf.put_failure(row.custom_id, job)
            summary.failed += 1
