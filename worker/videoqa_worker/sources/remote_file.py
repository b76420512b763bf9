"""A remote file of which only the needed ranges are fetched.

The first request is a ranged GET of the first 64 KiB (a presigned URL may refuse HEAD). Its
response tells the size, whether the store serves ranges, and the version of the file; all later
ranges must be of the same version. A sparse file of full length lies in the spool folder, and
`ensure` fills its holes. A file that is small, or that the store serves without ranges or without
a version, is fetched completely at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from videoqa.errors import ChecksumMismatch, SourceEmpty, SpoolFull
from videoqa_worker.frames import Span, Spans
from videoqa_worker.sources.checksums import compute_digest, verify_file
from videoqa_worker.sources.ranges.account import FetchAccount
from videoqa_worker.sources.ranges.fetcher import RangeFetcher
from videoqa_worker.sources.ranges.plan import plan_ranges
from videoqa_worker.sources.ranges.range_reader import RangeReader
from videoqa_worker.sources.ranges.threads import Task, run_in_threads
from videoqa_worker.sources.spool.quota import Reservation

__all__ = ["RemoteCopy"]


class RemoteCopy:
    """A `LocalCopy` of a remote file: threads of its own fill it, one thread uses it."""

    def __init__(
        self, account: FetchAccount, reader: RangeReader, path: Path, reservation: Reservation
    ) -> None:
        self.path = path
        self.present = Spans()
        self.checksum: str | None = None
        self._account = account
        self._reservation = reservation
        self._reader = reader
        self._fetcher = RangeFetcher(account, reader, path, reservation)
        self._opened_s = 0.0
        self._failure: BaseException | None = None

    def open_file(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def size_bytes(self) -> int:
        return self._account.total_bytes or 0

    @property
    def etag(self) -> str | None:
        etag = self._fetcher.version.etag
        return etag.strip('"') if etag else None

    @property
    def version_id(self) -> str | None:
        return self._fetcher.version.version_id

    @property
    def state(self) -> str | None:
        version = self._fetcher.version
        if version.is_named or not self.present.covers(0, self.size_bytes):
            return version.modified
        return compute_digest(self.path, self._account.check_caller)

    @property
    def fetched_bytes(self) -> int:
        return self._account.fetched_bytes

    @property
    def requests(self) -> int:
        return self._account.requests

    @property
    def waited_s(self) -> float:
        return self._account.waited_s - self._opened_s

    def open(self) -> None:
        """Sends the first request; fetches the whole file if it is small or comes without ranges."""
        with self._account.waiting(), self._translate_disk_full():
            self._begin()
            try:
                self._verify()
            except ChecksumMismatch:  # nobody has read these bytes yet
                self._restart()
                self._verify()
        self._opened_s = self._account.waited_s

    def ensure(self, spans: Sequence[Span]) -> None:
        """Fetches what is missing; see `SparseFile.ensure`. Fails for good after an error.

        Raises:
            InputChanged: the file has another version than at the first request.
        """
        if self._failure is not None:
            raise self._failure
        ranges = plan_ranges(spans, self.present, self.size_bytes, self._account.config)
        if not ranges:
            return
        try:
            with self._account.waiting(), self._translate_disk_full():
                self._fetch(ranges)
                self._verify()
        except BaseException as error:
            self._failure = error
            raise

    def _begin(self) -> None:
        run_in_threads(self._account, [self._fetcher.fetch_head])
        size_bytes = self.size_bytes
        if size_bytes == 0:
            raise SourceEmpty(
                f"{self._account.shown_url} has 0 bytes, expected a video or an image"
            )
        self.present.add(0, self._fetcher.head_bytes)
        if self.present.covers(0, size_bytes):
            run_in_threads(self._account, [self._fetcher.fetch_digest])
        elif size_bytes <= self._account.config.download_below_bytes:
            self._fetch(
                plan_ranges([(0, size_bytes)], self.present, size_bytes, self._account.config)
            )

    def _restart(self) -> None:
        self.present = Spans()
        self._account.discard_bytes(self._account.received_bytes)
        self._account.total_bytes = None
        self._fetcher = RangeFetcher(self._account, self._reader, self.path, self._reservation)
        self._begin()

    def _fetch(self, ranges: Sequence[Span]) -> None:
        will_be_bytes = self.present.total_bytes + sum(end - start for start, end in ranges)
        self._account.check_size(will_be_bytes)
        self._reservation.grow_to(will_be_bytes)
        tasks: list[Task] = [
            partial(self._fetcher.fetch_range, start, end) for start, end in ranges
        ]
        if will_be_bytes == self.size_bytes:
            tasks.append(self._fetcher.fetch_digest)
        run_in_threads(self._account, tasks, self._account.config.range_parallel)
        for start, end in ranges:
            self.present.add(start, end)

    @contextmanager
    def _translate_disk_full(self) -> Iterator[None]:
        """Translates the system's errors about a full disk into SpoolFull."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise SpoolFull(
                f"no space for {self._account.shown_url} in the worker's spool folder "
                f"({self._account.received_bytes} bytes came); free some, or set VIDEOQA_SPOOL_DIR"
            ) from error

    def _verify(self) -> None:
        """Checks the checksum, if the store has sent one and the file is complete."""
        digest = self._fetcher.digest
        if digest is not None and self.present.covers(0, self.size_bytes):
            verify_file(self.path, digest, self._account.shown_url, self._account.check_caller)
            self.checksum = digest.algorithm
