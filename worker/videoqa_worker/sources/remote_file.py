"""A remote file of which only the needed ranges are fetched.

The first request is a ranged GET of the first 64 KiB (a presigned URL may refuse HEAD). Its
response tells the size, whether the store serves ranges, and the version of the file; all later
ranges must be of the same version. A sparse file of full length lies in the spool folder, and
`ensure` fills its holes. A file that is small, or that the store serves without ranges or without
a version, is fetched completely at once.

Servers behind one address may name one file differently. Where a later range has another version, the
file is read whole by one response: the bytes of two versions are never mixed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from videoqa.errors import ChecksumMismatch, InputChanged, SourceEmpty, SpoolFull
from videoqa_worker.frames import Span, Spans
from videoqa_worker.sources.checksums import compute_digest, verify_file
from videoqa_worker.sources.ranges.account import FetchAccount
from videoqa_worker.sources.ranges.fetcher import RangeFetcher
from videoqa_worker.sources.ranges.plan import plan_ranges
from videoqa_worker.sources.ranges.range_reader import RangeReader
from videoqa_worker.sources.ranges.threads import Task, run_in_threads
from videoqa_worker.sources.spool.quota import Reservation
from videoqa_worker.sources.web_pages import PAGE_HEAD_BYTES

__all__ = ["RemoteCopy"]

CreateFile = Callable[[], AbstractContextManager[tuple[Path, Reservation]]]
_BLOCK_BYTES = 1 << 20


class RemoteCopy:
    """A `LocalCopy` of a remote file: threads of its own fill it, one thread uses it."""

    def __init__(
        self,
        account: FetchAccount,
        reader: RangeReader,
        path: Path,
        reservation: Reservation,
        create_file: CreateFile,
    ) -> None:
        """
        Arguments:
            create_file: makes another file of the spool, for a whole read that is compared with this one.
        """
        self.path = path
        self.present = Spans()
        self.checksum: str | None = None
        self._account = account
        self._reservation = reservation
        self._create_file = create_file
        self.is_reread = False
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
    def is_intact(self) -> bool:
        return not self.is_reread

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
            try:
                self._begin()
            except InputChanged as error:  # nobody has read these bytes yet
                self._check_whole_read(error)
                self._restart(whole=True)
            try:
                self._verify()
            except ChecksumMismatch:  # nobody has read these bytes yet
                self._restart()
                self._verify()
            self._refuse_page()
        self._opened_s = self._account.waited_s

    def _refuse_page(self) -> None:
        with self.path.open("rb") as file:
            head = file.read(min(PAGE_HEAD_BYTES, self.present.end_of(0)))
        if (page := self._reader.find_page(head)) is not None:
            raise page

    def ensure(self, spans: Sequence[Span]) -> None:
        """Fetches what is missing; see `SparseFile.ensure`. Fails for good after an error.

        Raises:
            InputChanged: the file has another version than at the first request, and is too large to
                be read whole, or the bytes that were read are none of that version.
        """
        if self._failure is not None:
            raise self._failure
        ranges = plan_ranges(spans, self.present, self.size_bytes, self._account.config)
        if not ranges:
            return
        try:
            with self._account.waiting(), self._translate_disk_full():
                try:
                    self._fetch(ranges)
                except InputChanged as error:
                    self._read_whole(error)
                self._verify()
        except BaseException as error:
            self._failure = error
            raise

    def _begin(self) -> None:
        self._run([self._fetcher.fetch_head])
        size_bytes = self.size_bytes
        if size_bytes == 0:
            raise SourceEmpty(
                f"{self._account.shown_url} has 0 bytes, expected a video or an image"
            )
        self.present.add(0, self._fetcher.head_bytes)
        if self.present.covers(0, size_bytes):
            self._run([self._fetcher.fetch_digest])
        elif size_bytes <= self._account.config.download_below_bytes:
            self._fetch(
                plan_ranges([(0, size_bytes)], self.present, size_bytes, self._account.config)
            )

    def _restart(self, *, whole: bool = False) -> None:
        self.present = Spans()
        self._account.discard_bytes(self._account.received_bytes)
        self._account.total_bytes = None
        self._fetcher = RangeFetcher(
            self._account, self._reader, self.path, self._reservation, whole=whole
        )
        self._begin()

    def _run(self, tasks: Sequence[Task], limit: int = 1) -> None:
        """Runs fetches; InputChanged, which a whole read may settle, does not stop the account for good."""
        changes: list[InputChanged] = []

        def attempt(task: Task) -> None:
            if not changes:
                try:
                    task()
                except InputChanged as error:
                    changes.append(error)

        run_in_threads(self._account, [partial(attempt, task) for task in tasks], limit)
        if changes:
            raise changes[0]

    def _check_whole_read(self, error: InputChanged) -> None:
        limit = self._account.config.whole_read_bytes
        if self.size_bytes > limit:
            raise InputChanged(
                f"{error.message}. A file of {self.size_bytes} bytes is not read whole to settle it; the worker's "
                f"VIDEOQA_SOURCE_WHOLE_READ_BYTES is {limit}"
            ) from error

    def _read_whole(self, error: InputChanged) -> None:
        """Reads the file by one response, and takes it for all that is missing, if what is present is in it.

        Raises:
            InputChanged: the file is too large for that, or has other bytes now.
        """
        self._check_whole_read(error)
        account, size_bytes = self._account, self.size_bytes
        account.discard_bytes(account.received_bytes)
        with self._create_file() as (path, reservation):
            fetcher = RangeFetcher(account, self._reader, path, reservation, whole=True)
            self._run([fetcher.fetch_head])
            if account.total_bytes != size_bytes or not self._adopt(path):
                raise InputChanged(
                    f"{error.message}. A whole read showed other bytes than those read before"
                ) from error
        self.is_reread = not self._fetcher.version.agrees_with(fetcher.version)
        self._fetcher = fetcher

    def _adopt(self, path: Path) -> bool:
        """Fills the holes from a whole file; returns False if a present byte is another one there."""
        size_bytes = self.size_bytes
        self._reservation.grow_to(size_bytes)
        with path.open("rb") as whole, self.path.open("r+b") as ours:
            for start, end in self.present:
                for at in range(start, end, _BLOCK_BYTES):
                    self._account.check_caller()
                    length = min(_BLOCK_BYTES, end - at)
                    if os.pread(whole.fileno(), length, at) != os.pread(ours.fileno(), length, at):
                        return False
            for start, end in self.present.missing(0, size_bytes):
                for at in range(start, end, _BLOCK_BYTES):
                    self._account.check_caller()
                    ours.seek(at)
                    ours.write(os.pread(whole.fileno(), min(_BLOCK_BYTES, end - at), at))
        self.present.add(0, size_bytes)
        return True

    def _fetch(self, ranges: Sequence[Span]) -> None:
        will_be_bytes = self.present.total_bytes + sum(end - start for start, end in ranges)
        self._account.check_size(will_be_bytes)
        self._reservation.grow_to(will_be_bytes)
        tasks: list[Task] = [
            partial(self._fetcher.fetch_range, start, end) for start, end in ranges
        ]
        if will_be_bytes == self.size_bytes:
            tasks.append(self._fetcher.fetch_digest)
        self._run(tasks, self._account.config.range_parallel)
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
