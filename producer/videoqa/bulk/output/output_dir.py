"""OutputDir: the folder or S3 prefix of a run's results, and what it holds already.

    OUTPUT/results/<custom_id>.json   result objects, written by workers
    OUTPUT/failed/<custom_id>.json    the reason why a row has no result, written by the run
    OUTPUT/results.jsonl              one line for each row; results.parquet on request
    OUTPUT/index.jsonl                what these lines were made of; may be lost
    OUTPUT/archive.json               the root below which videos have their names

The objects are the truth, and a line can be made from them at any time. If a row has both, the later
one is its outcome. A slash in a custom_id becomes `--` in the name. Knows rows and results, and
neither jobs in flight nor manifests.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote, unquote

from videoqa import errors
from videoqa.bulk.manifest.manifest import Row
from videoqa.bulk.output.records import ArchiveRecord, RowFailure
from videoqa.contract import Result, as_url, parse_object_url, parse_stored, quote_name, redact_url
from videoqa.storage import DISK_FULL, BucketNotFound, ObjectStore, file_path

__all__ = ["OutputDir", "StoredRow", "translate_disk_errors"]

T = TypeVar("T")
M = TypeVar("M", Result, RowFailure, ArchiveRecord)
_ARCHIVE = "archive.json"
TRIES = 6
"""For a store that does not answer: 16 s in all, then the run ends and can be continued."""


@dataclass(frozen=True)
class StoredRow:
    """The objects of a row; None where there is none, or some other file in its place."""

    result: Result | None = None
    result_version: str | None = None
    """None: there is no such file at all."""
    failure: RowFailure | None = None
    failure_version: str | None = None


class OutputDir:
    """A folder or an S3 prefix. Thread-safe."""

    def __init__(self, output: str, store: ObjectStore) -> None:
        """`output`: a path, or a `file://` or `s3://` URL."""
        self.url = as_url(output).rstrip("/")
        try:
            parse_object_url(f"{self.url}/results.jsonl").check_name()
        except ValueError as error:
            shown = redact_url(output) if "://" in output else output
            raise errors.InvalidRequest(
                f"got the output {shown!r}, expected a folder or s3://bucket/prefix: {error}",
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

    def file_version(self, name: str) -> str | None:
        """Returns the version of a file beside the objects, such as results.jsonl; None: there is none."""
        return _retry(lambda: self.store.version(f"{self.url}/{name}"))

    def open_file(self, name: str) -> IO[bytes] | None:
        """Opens a file beside the objects, or a copy of it, for reading; None: there is none."""
        folder = self.folder
        with translate_disk_errors(folder or Path(tempfile.gettempdir())), ExitStack() as opened:
            if folder is not None:
                try:
                    return (folder / name).open("rb")
                except FileNotFoundError:
                    return None
            copy = opened.enter_context(tempfile.TemporaryFile())
            try:
                self.store.download(f"{self.url}/{name}", copy)
            except errors.OutputNotFound:
                return None
            copy.seek(0)
            opened.pop_all()
        return copy

    def read_root(self) -> str | None:
        """Returns the URL of the root that an earlier run has noted, if there was one.

        Raises:
            InvalidRequest: archive.json is no record of ours.
        """
        record, version = self._parse(ArchiveRecord, f"{self.url}/{_ARCHIVE}")
        if record is None and version is not None:
            raise errors.InvalidRequest(
                f"{self.url}/{_ARCHIVE} does not tell the root of the archive; give it by --root",
                param="root",
            )
        return record.root if record else None

    def write_root(self, root: str) -> str:
        """Notes the root for later runs; returns the random text that all of them share."""
        before, _ = self._parse(ArchiveRecord, f"{self.url}/{_ARCHIVE}")
        run = (before.run if before else None) or secrets.token_hex(16)
        data = ArchiveRecord(root=root, run=run).model_dump_json(indent=2).encode()
        _retry(lambda: self.store.write(f"{self.url}/{_ARCHIVE}", data))
        return run

    def ignores_case(self) -> bool:
        """Tells if the folder's file system takes names that differ in case only as one; after `write_root`."""
        return self.folder is not None and (self.folder / _ARCHIVE.upper()).exists()

    def list_results(self) -> Iterator[tuple[str, str]]:
        """Yields `object_name`s of rows with a result, each with the object's version."""
        return self._list_names("results")

    def list_failures(self) -> Iterator[tuple[str, str]]:
        """Yields `object_name`s of rows with a failure, each with the object's version."""
        return self._list_names("failed")

    def _list_names(self, kind: str) -> Iterator[tuple[str, str]]:
        for url, version in self.store.list_versions(f"{self.url}/{kind}/"):
            yield unquote(url.rpartition("/")[2]).removesuffix(".json"), version

    def read_stored(self, name: str, *, has_result: bool, has_failure: bool) -> StoredRow:
        """Returns the stored objects of a row, by its `object_name`; those that are known to be there."""
        found = StoredRow()
        if has_result:
            url = f"{self.url}/results/{quote(name, safe='=')}.json"
            result, version = self._parse(Result, url)
            found = replace(found, result=result, result_version=version)
        if has_failure:
            url = f"{self.url}/failed/{quote(name, safe='=')}.json"
            failure, version = self._parse(RowFailure, url)
            found = replace(found, failure=failure, failure_version=version)
        return found

    def read_result(self, row: Row) -> StoredRow:
        """Returns the stored result of the row, be it of its present request or of an earlier one."""
        return StoredRow(*self._parse(Result, self.result_url(row.custom_id)))

    def _parse(self, kind: type[M], url: str) -> tuple[M | None, str | None]:
        """Returns an object and its version; without the object if some other file lies there."""
        try:
            text, version = _retry(lambda: self.store.read_version(url))
        except BucketNotFound:
            raise
        except errors.OutputNotFound:
            return None, None
        with suppress(errors.InvalidRequest):
            return parse_stored(kind, text), version
        return None, version

    def write_result(self, row: Row, result: Result, *, replaces: str | None) -> StoredRow:
        """Writes a result that only the job's record has, unless an object has come there since.

        Arguments:
            replaces: job whose result, of an earlier request of the row, is replaced.
        """
        data, url = result.model_dump_json(indent=2).encode(), self.result_url(row.custom_id)

        def keeps(there: bytes) -> bool:
            return there != data and (replaces is None or _find_job_id(there) != replaces)

        if not _retry(lambda: self.store.write(url, data, keeps=keeps)):
            return StoredRow()
        return StoredRow(result, _retry(lambda: self.store.version(url)))

    def write_failure(self, failure: RowFailure) -> str | None:
        """Writes a failure; returns the version of its object."""
        data, url = failure.model_dump_json(indent=2).encode(), self.failure_url(failure.custom_id)
        _retry(lambda: self.store.write(url, data))
        return _retry(lambda: self.store.version(url))

    def delete_failure(self, custom_id: str) -> None:
        _retry(lambda: self.store.delete(self.failure_url(custom_id)))

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
        if error.errno in DISK_FULL:
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


def _find_job_id(text: bytes) -> str | None:
    try:
        return parse_stored(Result, text).job_id
    except errors.InvalidRequest:
        return None


def _retry(call: Callable[[], T]) -> T:
    """Calls, and again with growing pauses while the store does not answer."""
    for attempt in range(1, TRIES):
        try:
            return call()
        except errors.OutputUnavailable:
            time.sleep(0.25 * 2**attempt)
    return call()
