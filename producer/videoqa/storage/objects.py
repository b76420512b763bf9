"""ObjectStore: small objects, read and written whole by URL (`s3://` and `file://`).

Used for results. Knows nothing of jobs or videos; large inputs are read by `videoqa_worker.sources`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from videoqa import errors
from videoqa.contract import ObjectUrl, parse_object_url
from videoqa.forks import reopen_in_children
from videoqa.redaction import redact_text, redact_url
from videoqa.storage.files import (
    PART_PREFIX,
    delete_file,
    file_version,
    list_files,
    read_file,
    write_file,
)
from videoqa.storage.s3_errors import (
    MISSING,
    BucketNotFound,
    bound_error_bodies,
    read_error_code,
    translate_s3_errors,
)
from videoqa.telemetry import log_events

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["ObjectStore", "file_path", "make_s3_client"]

log = logging.getLogger(__name__)

_CONDITION_FAILED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_CONDITIONS_UNSUPPORTED = {"NotImplemented", "501"}
_COMPARED_BYTES = 64 << 20
"""Longest part that is read of an object in the way, or twice the size of the new one if that is more."""
_MAX_SWAPS = 8


def make_s3_client(endpoint_url: str | None) -> S3Client:
    """Makes boto3's client, with its usual chain of credentials, bounded time-outs and retries."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 3}
    )
    # A session of its own: the default one keeps the credentials of whoever came first, and is not thread-safe.
    client = boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)
    bound_error_bodies(client)
    return client


def file_path(url: str) -> Path:
    """Returns the path of a file:// URL; raises OutputDenied if it is none."""
    return _parse_url(url).path


def _parse_url(url: str) -> ObjectUrl:
    try:
        return parse_object_url(url)
    except ValueError as error:
        raise errors.OutputDenied(
            f"can't use {redact_url(url)} as an object's URL: {error}", param="output"
        ) from error


class ObjectStore:
    """Reads and writes objects. Thread-safe; connects on first use."""

    def __init__(
        self, *, s3_endpoint_url: str | None = None, file_roots: tuple[Path, ...] | None = None
    ) -> None:
        """Makes a store; `file_roots` are the folders that file:// URLs may write into; None: any folder."""
        self._endpoint = s3_endpoint_url
        self._roots = None if file_roots is None else tuple(root.resolve() for root in file_roots)
        self._reopen()
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Starts anew in a forked child: two processes cannot share a connection."""
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    def _s3(self) -> S3Client:
        with self._lock:
            if self._client is None:
                try:
                    self._client = make_s3_client(self._endpoint)
                except ValueError as error:
                    raise errors.OutputDenied(
                        f"S3 can't be asked: {redact_text(str(error))}; check VIDEOQA_S3_ENDPOINT_URL"
                    ) from error
            return self._client

    def check(self, url: str) -> ObjectUrl:
        """Refuses a URL that cannot be written to, before any work is done for it.

        Returns:
            The very bucket and key, or path without symbolic links, that a write would use.

        Raises:
            OutputDenied: it is outside of the allowed folders, or no file or object can have its name.
        """
        place = _parse_url(url)
        try:
            place.check_name()
        except ValueError as error:
            raise errors.OutputDenied(f"may not write there: {error}", param="output") from error
        if place.bucket is not None:
            return place
        try:
            resolved = place.path.resolve()
        except (
            OSError,
            RuntimeError,
        ) as error:  # Python 3.11 raises RuntimeError for links in a circle
            raise errors.OutputDenied(
                f"may not write {place.path}: it cannot be followed; check its symbolic links",
                param="output",
            ) from error
        if self._roots is None or any(resolved.is_relative_to(root) for root in self._roots):
            return ObjectUrl(None, str(resolved))
        allowed = ", ".join(str(root) for root in self._roots) or "no folder"
        raise errors.OutputDenied(
            f"may not write {place.path}: this worker writes results below {allowed}; "
            "VIDEOQA_OUTPUT_ROOTS allows more",
            param="output",
        )

    def write(
        self,
        url: str,
        data: bytes,
        *,
        keeps: Callable[[bytes], bool] | None = None,
        content_type: str = "application/json",
    ) -> bool:
        """Writes an object whole or not at all.

        Arguments:
            keeps: called with the object that exists already, or its beginning if it is far larger than
                the new one. True: it stays, and nothing is written; it may raise instead. No other
                writer's object is lost between this call and the write. None: any object is replaced.

        Returns:
            False if the existing object stayed.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        place = self.check(url)
        limit = max(_COMPARED_BYTES, 2 * len(data))
        if place.bucket is None:
            return write_file(place.path, data, keeps, limit)
        if keeps is None:
            return self._put_s3(url, data, content_type, {})
        return self._swap_s3(url, data, keeps, content_type, limit)

    def _swap_s3(
        self, url: str, data: bytes, keeps: Callable[[bytes], bool], content_type: str, limit: int
    ) -> bool:
        """Writes under the condition that the object is still the one that was compared.

        A store without conditional writes either refuses the condition, or replaces what it finds. What
        exists is therefore read before the first write; such a store then has a gap only between the two.
        """
        for _ in range(_MAX_SWAPS):
            readable = True
            try:
                there, etag = self._read_s3(url, limit)
            except BucketNotFound:
                raise
            except errors.OutputNotFound:
                condition = {"IfNoneMatch": "*"}
            except errors.OutputDenied:  # so S3 answers for a missing key, too, without ListBucket
                readable, condition = False, {"IfNoneMatch": "*"}
            else:
                try:
                    if keeps(there):
                        return False
                except errors.OutputConflict:
                    if self._read_s3(url, limit)[0] != there:
                        continue  # bytes were broken on the way: it may be this job's own object
                    raise
                condition = {"IfMatch": etag}
            if self._put_s3(url, data, content_type, condition, may_drop=readable):
                return True
            if not readable:
                raise errors.OutputDenied(
                    f"{url} exists, and may not be read to tell whose it is; allow s3:GetObject",
                    param="output",
                )
        raise errors.OutputUnavailable(
            f"other writers replaced {url} {_MAX_SWAPS} times meanwhile; try again", param="output"
        )

    def _put_s3(
        self,
        url: str,
        data: bytes,
        content_type: str,
        condition: dict[str, str],
        *,
        may_drop: bool = False,
    ) -> bool:
        """Puts an object; returns False if the condition does not hold.

        Arguments:
            may_drop: put it without the condition if the store knows no conditions.
        """
        from botocore.exceptions import ClientError

        bucket, key = _bucket_key(url)
        put: Any = self._s3().put_object
        with translate_s3_errors(url, bucket):
            try:
                put(Bucket=bucket, Key=key, Body=data, ContentType=content_type, **condition)
            except ClientError as error:
                code = read_error_code(error)
                # An If-Match on an object that has gone is answered as missing.
                if condition and code in _CONDITION_FAILED | MISSING:
                    return False
                if not (may_drop and code in _CONDITIONS_UNSUPPORTED):
                    raise
                log_events.NO_CONDITIONAL_WRITES.log(log, store=url)
                return self._put_s3(url, data, content_type, {})
        return True

    def read(self, url: str, max_bytes: int | None = None) -> bytes:
        """Reads an object, or its first `max_bytes`.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        return self._read(url, max_bytes)[0]

    def read_version(self, url: str) -> tuple[bytes, str]:
        """Reads an object and its version; see `read` and `list_versions`."""
        return self._read(url, None)

    def _read(self, url: str, max_bytes: int | None) -> tuple[bytes, str]:
        place = _parse_url(url)
        if place.bucket is None:
            return read_file(place.path, max_bytes)
        return self._read_s3(url, max_bytes)

    def version(self, url: str) -> str | None:
        """Returns the version of an object, as `list_versions` does; None: it does not exist.

        Raises:
            OutputDenied, OutputUnavailable
        """
        place = _parse_url(url)
        if place.bucket is None:
            try:
                return file_version(place.path.stat())
            except (FileNotFoundError, NotADirectoryError):
                return None
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                raise errors.OutputDenied(
                    f"can't read {place.path}: {error}", param="output"
                ) from error
        bucket, key = _bucket_key(url)
        with suppress(errors.OutputNotFound), translate_s3_errors(url, bucket):
            return self._s3().head_object(Bucket=bucket, Key=key)["ETag"]
        return None

    def list(self, prefix: str) -> Iterator[str]:
        """Yields the URLs of all objects below a folder or a prefix that ends in `/`, unsorted.

        A folder that does not exist has none. Files that are still being written are left out.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        return (url for url, _ in self.list_versions(prefix))

    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yields what `list` does, each with a text that changes when the object is replaced."""
        place = _parse_url(prefix)
        found = list_files(place.path) if place.bucket is None else self._list_s3(prefix)
        for url, version in found:
            if not url.rpartition("/")[2].startswith(PART_PREFIX):
                yield url, version

    def _list_s3(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yields the URLs and ETags below a prefix, in requests of 1,000 each."""
        bucket, start = _bucket_key(prefix)
        with translate_s3_errors(prefix, bucket):
            pages = iter(
                self._s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
            )
        while True:
            with translate_s3_errors(prefix, bucket):
                page = next(pages, None)
                contents = page.get("Contents", []) if page is not None else []
                found = [(item["Key"], item["ETag"]) for item in contents]
            if page is None:
                return
            for key, version in found:
                yield f"s3://{bucket}/{quote(key)}", version

    def delete(self, url: str) -> None:
        """Deletes an object, if it exists.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        place = self.check(url)
        if place.bucket is None:
            delete_file(place.path)
            return
        bucket, key = _bucket_key(url)
        with translate_s3_errors(url, bucket):
            self._s3().delete_object(Bucket=bucket, Key=key)

    def upload(self, file: IO[bytes], url: str) -> None:
        """Copies a file of any size, from its beginning, to an `s3://` URL, in parts.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        bucket, key = _bucket_key(url)
        file.seek(0)
        # boto3 closes what it has read
        with os.fdopen(os.dup(file.fileno()), "rb") as copy, translate_s3_errors(url, bucket):
            self._s3().upload_fileobj(copy, bucket, key)

    def download(self, url: str, file: IO[bytes]) -> None:
        """Copies an object of any size from an `s3://` URL into a file, in parts.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        bucket, key = _bucket_key(url)
        with translate_s3_errors(url, bucket):
            self._s3().download_fileobj(bucket, key, file)

    def _read_s3(self, url: str, max_bytes: int | None = None) -> tuple[bytes, str]:
        """Returns the object, or its first `max_bytes`, and its ETag."""
        bucket, key = _bucket_key(url)
        with translate_s3_errors(url, bucket):
            reply = self._s3().get_object(Bucket=bucket, Key=key)
            size, etag = reply["ContentLength"], reply["ETag"]
            data = reply["Body"].read(max_bytes)
        # boto3 reports a body that ends early as success.
        if len(data) != (size if max_bytes is None else min(size, max_bytes)):
            raise errors.OutputUnavailable(
                f"got {len(data)} bytes of {url}, expected {size}; try again"
            )
        return data, etag


def _bucket_key(url: str) -> tuple[str, str]:
    place = _parse_url(url)
    if place.bucket is None:
        raise errors.OutputDenied(f"got {url}, expected s3://bucket/key", param="output")
    return place.bucket, place.name
