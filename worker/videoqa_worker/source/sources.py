"""The bytes of an input, as a local file for as long as they are needed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from videoqa.errors import SourceError, SpoolFull
from videoqa_worker.source.address import Resolve, look_up
from videoqa_worker.source.config import SourceConfig
from videoqa_worker.source.file import local_file
from videoqa_worker.source.http import HttpSource
from videoqa_worker.source.local import LocalCopy
from videoqa_worker.source.s3 import S3Source
from videoqa_worker.source.spool import Spool
from videoqa_worker.source.transfer import Progress, Transfer, no_check

__all__ = ["Sources"]


class Sources:
    """Shared by all threads of a worker; a context manager that removes its spool folder."""

    def __init__(self, config: SourceConfig, *, resolve: Resolve = look_up) -> None:
        self._config = config
        self._spool = Spool(config.spool_dir)
        self._http = HttpSource(resolve)
        self._s3 = S3Source(config)

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
        """Fetches the URL (s3, http, https, file); the copy is gone on exit.

        `check` is called at every chunk, and at least each half second of waiting over
        HTTP; what it raises passes untouched.

        Raises:
            SourceError: one of its kinds. SpoolFull: the spool folder's disk is full.
        """
        transfer = Transfer(url, self._config, check, progress)
        scheme = urlsplit(url).scheme
        if scheme == "file":
            yield local_file(transfer)
            return
        if scheme not in ("http", "https", "s3"):
            raise SourceError(f"got scheme {scheme!r}, expected s3, http, https or file")
        fetch = self._s3.fetch if scheme == "s3" else self._http.fetch
        with self._spool.file() as path:
            try:
                copy = fetch(transfer, path)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                raise SpoolFull(
                    f"no space for {transfer.shown} in the worker's spool folder "
                    f"({transfer.received_bytes} bytes came); free the disk or set spool_dir"
                ) from error
            yield copy
