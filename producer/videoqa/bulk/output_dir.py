"""OutputDir: the folder or S3 prefix of a run's results, and what it holds already.

    OUTPUT/results/<custom_id>.json   result objects, written by workers
    OUTPUT/failed/<custom_id>.json    the reason why a row has no result, written by the run
    OUTPUT/results.jsonl              one line for each row; results.parquet on request

The objects are the truth: every run builds the lines from them anew. A slash in a custom_id becomes
`%2F` in the name. Knows rows and results, and neither jobs in flight nor manifests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from videoqa import errors
from videoqa.bulk.manifest import Row
from videoqa.bulk.records import RowFailure
from videoqa.contract import Result, as_url, parse_object_url, parse_stored, quote_name, redact_url
from videoqa.storage import ObjectStore, file_path

__all__ = ["OutputDir"]

T = TypeVar("T")
TRIES = 6
"""For a store that does not answer: 16 s in all, then the run ends and can be continued."""


class OutputDir:
    """A folder or an S3 prefix. Thread-safe."""

    def __init__(self, output: str, store: ObjectStore) -> None:
        """`output`: a path, or a `file://` or `s3://` URL."""
        self.url = as_url(output).rstrip("/")
        try:
            parse_object_url(f"{self.url}/results.jsonl").check_name()
        except ValueError as error:
            raise errors.InvalidRequest(
                f"got the output {redact_url(output)!r}, expected a folder or s3://bucket/prefix: {error}",
                param="output",
            ) from error
        self.store = store

    @property
    def folder(self) -> Path | None:
        """The path, or None for an S3 prefix."""
        return file_path(self.url) if self.url.startswith("file:") else None

    @property
    def template(self) -> str:
        """The `output` template of each job, from which its worker makes the result's URL."""
        return self.url.replace("{", "{{").replace("}", "}}") + "/results/{custom_id}.json"

    def result_url(self, custom_id: str) -> str:
        return f"{self.url}/results/{quote_name(custom_id)}.json"

    def failure_url(self, custom_id: str) -> str:
        return f"{self.url}/failed/{quote_name(custom_id)}.json"

    def list_names(self, *, retry_failed: bool) -> Iterator[str]:
        """Yields `object_name`s of rows that need no job: with a result, or failed and not retried."""
        for kind in ("results",) if retry_failed else ("results", "failed"):
            for url in self.store.list(f"{self.url}/{kind}/"):
                yield unquote(url.rpartition("/")[2]).removesuffix(".json")

    def read_result(self, row: Row) -> Result | None:
        """Returns the stored result of the row, be it of its present request or of an earlier one."""
        text = self._read(self.result_url(row.custom_id))
        if text is not None:
            # Some other file lies there: no worker replaces it, and the row's job says so.
            with suppress(errors.InvalidRequest):
                return parse_stored(Result, text)
        return None

    def read_failure(self, row: Row) -> RowFailure | None:
        """Returns the stored failure if it belongs to the row's present request, else None."""
        text = self._read(self.failure_url(row.custom_id))
        if text is None:
            return None
        with suppress(errors.InvalidRequest):
            failure = parse_stored(RowFailure, text)
            if failure.digest == row.digest:
                return failure
        return None

    def write_result(self, row: Row, result: Result) -> bool:
        """Writes a result that only the job's record in Redis has, unless an object has come there since."""
        data, url = result.model_dump_json(indent=2).encode(), self.result_url(row.custom_id)
        return _retry(lambda: self.store.write(url, data, keeps=lambda there: there != data))

    def write_failure(self, failure: RowFailure) -> None:
        data = failure.model_dump_json(indent=2).encode()
        _retry(lambda: self.store.write(self.failure_url(failure.custom_id), data))

    def delete_failure(self, custom_id: str) -> None:
        _retry(lambda: self.store.delete(self.failure_url(custom_id)))

    def _read(self, url: str) -> bytes | None:
        try:
            return _retry(lambda: self.store.read(url))
        except errors.OutputNotFound as error:
            if error.message.startswith("bucket "):
                raise
            return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks a folder against a second run on this machine, for as long as this process lives.

        Raises:
            OutputDenied: another run writes there.
        """
        folder = self.folder
        if folder is None:
            yield
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / ".lock").open("w")
        except OSError as error:
            raise errors.OutputDenied(
                f"can't write into {folder}: {error.strerror or error}", param="output"
            ) from error
        with file:
            _lock(file.fileno(), folder)
            yield


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise errors.OutputDenied(
            f"another run writes into {folder}; wait until it ends, or name another output",
            param="output",
        ) from error
    except OSError:  # a file system without locks
        return


def _retry(call: Callable[[], T]) -> T:
    """Calls, and again with growing pauses while the store does not answer."""
    for attempt in range(1, TRIES):
        try:
            return call()
        except errors.OutputUnavailable:
            time.sleep(0.25 * 2**attempt)
    return call()
