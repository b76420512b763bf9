"""Place: where the results of a run lie, and what is there already.

    OUTPUT/results/<custom_id>.json   result objects, written by workers
    OUTPUT/failed/<custom_id>.json    why a row has none, written by the run
    OUTPUT/results.jsonl              a line a row; results.parquet on request

The objects are the truth: the lines are made from them anew by every run. A slash in a custom_id
becomes `%2F` in the name. Knows rows and results, and neither jobs in flight nor manifests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from videoqa import errors
from videoqa.bulk.manifest import DIGEST_KEY, Row
from videoqa.bulk.written import RowFailure
from videoqa.contract import Result, as_url, parse_stored
from videoqa.storage import ObjectStore, file_path, quote_name

__all__ = ["Place"]

T = TypeVar("T")
TRIES = 6
"""Of a store that does not answer, over 16 s; then the run ends, and can be gone on with."""


class Place:
    """A folder or an S3 prefix. Thread-safe."""

    def __init__(self, output: str, store: ObjectStore) -> None:
        """`output`: a path, or a `file://` or `s3://` URL."""
        url = as_url(output)
        if not url.startswith(("s3://", "file:///")) or not url.removeprefix("s3://").strip("/"):
            raise errors.InvalidRequest(
                f"got the output {output!r}, expected a folder or s3://bucket/prefix",
                param="output",
            )
        self.url = url.rstrip("/")
        self.store = store

    @property
    def folder(self) -> Path | None:
        """The output, where it is a folder."""
        return file_path(self.url) if self.url.startswith("file:") else None

    @property
    def template(self) -> str:
        """What a worker makes `result_url` of."""
        return self.url.replace("{", "{{").replace("}", "}}") + "/results/{custom_id}.json"

    def result_url(self, custom_id: str) -> str:
        return f"{self.url}/results/{quote_name(custom_id)}.json"

    def failure_url(self, custom_id: str) -> str:
        return f"{self.url}/failed/{quote_name(custom_id)}.json"

    @staticmethod
    def name(custom_id: str) -> str:
        """By which `names` lists it."""
        return unquote(quote_name(custom_id))

    def names(self, retry_failed: bool) -> Iterator[str]:
        """Of rows that have a result, and of those that failed unless these are tried again."""
        for kind in ("results",) if retry_failed else ("results", "failed"):
            for url in self.store.list(f"{self.url}/{kind}/"):
                yield unquote(url.rpartition("/")[2]).removesuffix(".json")

    def read_result(self, row: Row) -> Result | None:
        """The row's result, if one is there and answers what the row asks now."""
        text = self._read(self.result_url(row.custom_id))
        if text is None:
            return None
        with suppress(errors.InvalidRequest):  # something else lies there: it is replaced
            result = parse_stored(Result, text)
            if result.metadata.get(DIGEST_KEY) == row.digest:
                return result
        return None

    def read_failure(self, row: Row) -> RowFailure | None:
        text = self._read(self.failure_url(row.custom_id))
        if text is None:
            return None
        with suppress(errors.InvalidRequest):
            failure = parse_stored(RowFailure, text)
            if failure.digest == row.digest:
                return failure
        return None

    def write_result(self, row: Row, result: Result) -> None:
        """For a result that only the job's record has."""
        data = result.model_dump_json(indent=2).encode()
        _patiently(lambda: self.store.write(self.result_url(row.custom_id), data))

    def write_failure(self, failure: RowFailure) -> None:
        data = failure.model_dump_json(indent=2).encode()
        _patiently(lambda: self.store.write(self.failure_url(failure.custom_id), data))

    def forget_failure(self, custom_id: str) -> None:
        _patiently(lambda: self.store.delete(self.failure_url(custom_id)))

    def _read(self, url: str) -> bytes | None:
        try:
            return _patiently(lambda: self.store.read(url))
        except errors.OutputNotFound as error:
            if error.message.startswith("bucket "):
                raise
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second run of this machine out of a folder, for as long as this process lives.

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
            f"another run writes into {folder}; wait for its end, or name another output",
            param="output",
        ) from error
    except OSError:  # a file system without locks
        return


def _patiently(call: Callable[[], T]) -> T:
    for attempt in range(1, TRIES):
        try:
            return call()
        except errors.OutputUnavailable:
            time.sleep(0.25 * 2**attempt)
    return call()
