"""OutputDir: the folder or S3 prefix of a run's results, and what it holds already.

    OUTPUT/results/<custom_id>.json   result objects, written by workers
    OUTPUT/failed/<custom_id>.json    the reason why a row has no result, written by the run
    OUTPUT/results.jsonl              one line for each row; results.parquet on request

The objects are the truth, and a line can be made from them at any time. If a row has both, the later
one is its outcome. A slash in a custom_id becomes `%2F` in the name. Knows rows and results, and
neither jobs in flight nor manifests.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from videoqa import errors
from videoqa.bulk.manifest import Row
from videoqa.bulk.records import RowFailure
from videoqa.contract import Result, as_url, parse_object_url, parse_stored, quote_name, redact_url
from videoqa.storage import ObjectStore, file_path

__all__ = ["OutputDir", "translate_disk_errors"]

T = TypeVar("T")
M = TypeVar("M", Result, RowFailure)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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

    def has_file(self, name: str) -> bool:
        """Returns True if there is a file, such as results.parquet, beside the objects."""
        return self.store.version(f"{self.url}/{name}") is not None

    def list_results(self) -> Iterator[tuple[str, str]]:
        """Yields `object_name`s of rows with a result, each with the object's version."""
        return self._list_names("results")

    def list_failures(self) -> Iterator[tuple[str, str]]:
        """Yields `object_name`s of rows with a failure, each with the object's version."""
        return self._list_names("failed")

    def _list_names(self, kind: str) -> Iterator[tuple[str, str]]:
        for url, version in self.store.list_versions(f"{self.url}/{kind}/"):
            yield unquote(url.rpartition("/")[2]).removesuffix(".json"), version

    def read_outcome(self, name: str) -> Result | RowFailure | None:
        """Returns the stored result or failure, whichever is later, by the row's `object_name`."""
        result = self._parse(Result, f"{self.url}/results/{quote(name, safe='')}.json")
        failure = self._parse(RowFailure, f"{self.url}/failed/{quote(name, safe='')}.json")
        if result is None or failure is None:
            return result or failure
        return result if result.finished_at > failure.failed_at else failure

    def read_result(self, row: Row) -> Result | None:
        """Returns the stored result of the row, be it of its present request or of an earlier one."""
        return self._parse(Result, self.result_url(row.custom_id))

    def read_failure(self, row: Row) -> RowFailure | None:
        """Returns the stored failure if it belongs to the row's present request, else None."""
        failure = self._parse(RowFailure, self.failure_url(row.custom_id))
        return failure if failure and failure.digest == row.digest else None

    def _parse(self, kind: type[M], url: str) -> M | None:
        """Returns the object; None: there is none, or some other file lies there."""
        text = self._read(url)
        with suppress(errors.InvalidRequest):
            return parse_stored(kind, text) if text is not None else None
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
        with translate_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / ".lock").open("w")
        with file:
            _lock(file.fileno(), folder)
            yield


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Turns errors of writing below a folder into ours, with the next step."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise errors.OutputUnavailable(
                f"can't write into {folder}: {error.strerror}; free some space there and run the same "
                "command again, nothing is lost",
                param="output",
            ) from error
        raise errors.OutputDenied(
            f"can't write into {folder}: {error.strerror or error}; check its permissions",
            param="output",
        ) from error


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
