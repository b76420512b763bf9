"""Opens an input by its URL as a local file, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Self

from videoqa.contract import is_s3_url, split_url
from videoqa.errors import SourceError
from videoqa.net import Resolve, resolve_name
from videoqa_worker.frames import no_check
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources.file import open_local_file
from videoqa_worker.sources.http import HttpSource
from videoqa_worker.sources.local_copy import LocalCopy
from videoqa_worker.sources.ranges.account import FetchAccount, Progress
from videoqa_worker.sources.remote_file import RemoteCopy
from videoqa_worker.sources.s3 import S3Source
from videoqa_worker.sources.spool.folder import Spool

__all__ = ["Sources"]


class Sources:
    """The sources of a worker, shared by its threads; a context manager that removes its spool."""

    def __init__(
        self,
        config: SourceConfig,
        *,
        s3_endpoint_url: str | None = None,
        resolve: Resolve = resolve_name,
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
        """Yields a copy of the file behind the URL (s3, http, https, file), deleted on exit.

        Only the beginning of a large remote file is present at first; the copy's `ensure`
        fetches more. `check` and `progress` are called on this thread, about ten times a second
        while it waits; their exceptions pass through.

        Raises:
            SourceError: one of its kinds, from `ensure` too, and on exit from a local file that
                changed. SpoolFull: the disk or the quota is full.
        """
        account = FetchAccount(url, self._config, check, progress)
        try:
            scheme = "s3" if is_s3_url(url) else split_url(url).scheme
        except ValueError:
            raise SourceError(
                f"got {account.shown_url}, which has no valid host; check it"
            ) from None
        if scheme == "file":
            with open_local_file(account) as file:
                yield file
            return
        if scheme not in ("http", "https", "s3"):
            raise SourceError(
                f"got a URL with the scheme {scheme!r}, expected s3, http, https or file"
            )
        source = self._s3 if scheme == "s3" else self._http
        with (
            self._spool.create_file() as (path, reservation),
            closing(source.reader(account)) as reader,
        ):
            copy = RemoteCopy(account, reader, path, reservation, self._spool.create_file)
            try:
                copy.open()
                yield copy
            finally:
                account.stop()
