"""The bytes of an input, as a local file for as long as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from videoqa.errors import SourceError
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources.addresses import Resolve, look_up
from videoqa_worker.sources.file import local_file
from videoqa_worker.sources.http import HttpSource
from videoqa_worker.sources.local_copy import LocalCopy
from videoqa_worker.sources.ranges.transfer import Progress, Transfer, no_check
from videoqa_worker.sources.remote import RemoteCopy
from videoqa_worker.sources.s3 import S3Source
from videoqa_worker.sources.spool.folder import Spool

__all__ = ["Sources"]


class Sources:
    """Shared by all threads of a worker; a context manager that removes its spool folder."""

    def __init__(
        self,
        config: SourceConfig,
        *,
        s3_endpoint_url: str | None = None,
        resolve: Resolve = look_up,
    ) -> None:
        self._config = config
        self._spool = Spool(config.spool_dir, config.spool_quota_bytes)
        self._http = HttpSource(resolve)
        self._s3 = S3Source(config, s3_endpoint_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._s3.close()
        self._spool.close()

    @contextmanager
    def open(
        self,
        url: str,
        *,
        check: Callable[[], None] = no_check,
        progress: Progress | None = None,
    ) -> Iterator[LocalCopy]:
        """A copy of what the URL leads to (s3, http, https, file), gone on exit.

        Of a large remote file only the beginning is there when this yields; the rest comes by
        the copy's `ensure`. `check` and `progress` are called on this thread, about ten times
        a second while it waits; what they raise passes untouched.

        Raises:
            SourceError: one of its kinds, from `ensure` too, and on exit from a local file that
                changed. SpoolFull: no room on the disk.
        """
        transfer = Transfer(url, self._config, check, progress)
        scheme = urlsplit(url).scheme
        if scheme == "file":
            with local_file(transfer) as file:
                yield file
            return
        if scheme not in ("http", "https", "s3"):
            raise SourceError(f"got scheme {scheme!r}, expected s3, http, https or file")
        source = self._s3 if scheme == "s3" else self._http
        with self._spool.file() as (path, room), closing(source.reader(transfer)) as reader:
            copy = RemoteCopy(transfer, reader, path, room)
            try:
                copy.open()
                yield copy
            finally:
                transfer.stop()
