"""A file of another machine, of which no more comes here than is asked for.

The first request is a ranged GET of the first 64 KiB (a presigned URL may refuse HEAD); it
tells the size, whether the store gives ranges, and how it names this state of the file. All
later ranges must come from that very state. A sparse file of full length lies in the spool,
and `ensure` fills its holes. What is small, or comes in no ranges, or has no name, is fetched
whole at once.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from videoqa.errors import ChecksumMismatch, SourceEmpty, SpoolFull
from videoqa_worker.frames import Span, Spans
from videoqa_worker.sources.checksums import digest_of, verify
from videoqa_worker.sources.ranges.fetcher import Fetcher
from videoqa_worker.sources.ranges.plan import plan
from videoqa_worker.sources.ranges.reader import Reader
from videoqa_worker.sources.ranges.threads import Task, together
from videoqa_worker.sources.ranges.transfer import Transfer
from videoqa_worker.sources.spool.quota import Room

__all__ = ["RemoteCopy"]


class RemoteCopy:
    """A `LocalCopy`. Filled by threads of its own, used by one."""

    def __init__(self, transfer: Transfer, reader: Reader, path: Path, room: Room) -> None:
        self.path = path
        self.present = Spans()
        self.checksum: str | None = None
        self._transfer = transfer
        self._room = room
        self._reader = reader
        self._fetcher = Fetcher(transfer, reader, path, room)
        self._opened_s = 0.0
        self._failure: BaseException | None = None

    @property
    def size_bytes(self) -> int:
        return self._transfer.total_bytes or 0

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
        if version.named or not self.present.covers(0, self.size_bytes):
            return version.modified
        return digest_of(self.path, self._transfer.listen)

    @property
    def fetched_bytes(self) -> int:
        return self._transfer.fetched_bytes

    @property
    def requests(self) -> int:
        return self._transfer.requests

    @property
    def waited_s(self) -> float:
        return self._transfer.waited_s - self._opened_s

    def open(self) -> None:
        """The first request, and all bytes where they are few or come only together."""
        with self._transfer.waiting(), self._disk():
            self._begin()
            try:
                self._verify()
            except ChecksumMismatch:  # nobody has seen these bytes yet
                self._begin_anew()
                self._verify()
        self._opened_s = self._transfer.waited_s

    def ensure(self, spans: Sequence[Span]) -> None:
        """See `Media.ensure`. After an error the copy is of no more use.

        Raises:
            InputChanged: the file is no longer the one of the first request.
        """
        if self._failure is not None:
            raise self._failure
        todo = plan(spans, self.present, self.size_bytes, self._transfer.config)
        if not todo:
            return
        try:
            with self._transfer.waiting(), self._disk():
                self._fetch(todo)
                self._verify()
        except BaseException as error:
            self._failure = error
            raise

    def _begin(self) -> None:
        together(self._transfer, [self._fetcher.head])
        size_bytes = self.size_bytes
        if size_bytes == 0:
            raise SourceEmpty(f"{self._transfer.shown} has 0 bytes, expected a video or an image")
        self.present.add(0, self._fetcher.head_bytes)
        if self.present.covers(0, size_bytes):
            together(self._transfer, [self._fetcher.ask_digest])
        elif size_bytes <= self._transfer.config.download_below_bytes:
            self._fetch(plan([(0, size_bytes)], self.present, size_bytes, self._transfer.config))

    def _begin_anew(self) -> None:
        self.present = Spans()
        self._transfer.lose(self._transfer.received_bytes)
        self._transfer.total_bytes = None
        self._fetcher = Fetcher(self._transfer, self._reader, self.path, self._room)
        self._begin()

    def _fetch(self, todo: Sequence[Span]) -> None:
        will_be_bytes = self.present.total_bytes + sum(end - start for start, end in todo)
        self._transfer.limit(will_be_bytes)
        self._room.hold(will_be_bytes)
        tasks: list[Task] = [partial(self._fetcher.range, start, end) for start, end in todo]
        if will_be_bytes == self.size_bytes:
            tasks.append(self._fetcher.ask_digest)
        together(self._transfer, tasks, self._transfer.config.range_parallel)
        for start, end in todo:
            self.present.add(start, end)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """The spool's disk is full: our error."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise SpoolFull(
                f"no space for {self._transfer.shown} in the worker's spool folder "
                f"({self._transfer.received_bytes} bytes came); free the disk or set spool_dir"
            ) from error

    def _verify(self) -> None:
        """Once all is there, and if the store has told its checksum."""
        digest = self._fetcher.digest
        if digest is not None and self.present.covers(0, self.size_bytes):
            verify(self.path, digest, self._transfer.shown, self._transfer.listen)
            self.checksum = digest.algorithm
