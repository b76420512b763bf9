"""Object storage: whole small objects, read and written by URL (`s3://` and `file://`).

Used for results. Knows nothing of jobs or videos; large inputs have their own way
(`videoqa_worker.source`).
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EEXIST, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, EPERM, EROFS
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from videoqa import errors

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["ObjectStore", "file_path", "object_name", "s3_client"]

_DENIED = {
    "AccessDenied",
    "403",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AllAccessDisabled",
}
_FOR_GOOD = {EACCES, EPERM, EROFS, ENOTDIR, EISDIR, EEXIST, ENAMETOOLONG, ELOOP}
_NOT_IN_A_NAME = re.compile(r"[%/\\\x00-\x1f\x7f]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_UNMET = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_NO_CONDITIONS = {"NotImplemented", "501"}
_SWAPS = 8
_LOCK_S = 5.0
"""Held for a read and a rename: a holder that stands still must not stop all others."""
_MISSING = {"NoSuchKey", "404", "NotFound"}


def s3_client(endpoint_url: str | None) -> S3Client:
    """boto3's client with its usual chain of credentials, and bounded time-outs and retries."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 3}
    )
    return boto3.client("s3", endpoint_url=endpoint_url, config=config)


def object_name(text: str) -> str:
    """As one part of a URL's path, whatever it holds: `a/b` becomes the file `a%2Fb`.

    Dots alone would be a way up.
    """
    name = _NOT_IN_A_NAME.sub(lambda found: f"%{ord(found[0]):02X}", text)
    return quote(name.replace(".", "%2E") if set(name) == {"."} else name, safe="")


def file_path(url: str) -> Path:
    """The path of a file:// URL."""
    return Path(unquote(urlsplit(url).path))


class ObjectStore:
    """Reads and writes objects. Thread-safe; connects on first use."""

    def __init__(
        self, *, s3_endpoint_url: str | None = None, file_roots: tuple[Path, ...] | None = None
    ) -> None:
        """`file_roots`: the folders that file:// URLs may write into; None: anywhere."""
        self._endpoint = s3_endpoint_url
        self._roots = None if file_roots is None else tuple(root.resolve() for root in file_roots)
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    def _s3(self) -> S3Client:
        with self._lock:
            if self._client is None:
                self._client = s3_client(self._endpoint)
            return self._client

    def check(self, url: str) -> None:
        """Refuses what cannot be written, before any work is done for it.

        Raises:
            OutputDenied: outside the folders, or no name that a file or object can have.
        """
        if not url.startswith("file:"):
            bucket, key = _bucket_key(url)
            if not (_BUCKET.fullmatch(bucket) and key):
                raise errors.OutputDenied(
                    f"may not write {url}: got bucket {bucket!r} and key {key!r}, expected "
                    "s3://bucket/key",
                    param="output",
                )
            return
        path = file_path(url)
        if "\0" in str(path):
            raise errors.OutputDenied("may not write a path with a NUL in it", param="output")
        resolved = path.resolve()
        if self._roots is None or any(resolved.is_relative_to(root) for root in self._roots):
            return
        allowed = ", ".join(str(root) for root in self._roots) or "no folder"
        raise errors.OutputDenied(
            f"may not write {path}: this worker writes results below {allowed}; "
            "VIDEOQA_OUTPUT_ROOTS allows more",
            param="output",
        )

    def write(
        self,
        url: str,
        data: bytes,
        *,
        keeps: Callable[[bytes], bool] = lambda there: False,
        content_type: str = "application/json",
    ) -> bool:
        """Writes an object whole or not at all; the same URL again replaces it.

        Arguments:
            keeps: says of what is there already whether it stays; then nothing is written. Between
                this question and the write nobody else's write gets lost (`If-None-Match` and
                `If-Match`; a lock on the folder of a file).

        Returns:
            False if what was there stayed.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        self.check(url)
        if url.startswith("file:"):
            return _write_file(file_path(url), data, keeps)
        return self._write_s3(url, data, keeps, content_type)

    def _write_s3(
        self, url: str, data: bytes, keeps: Callable[[bytes], bool], content_type: str
    ) -> bool:
        if self._put(url, data, content_type, {"IfNoneMatch": "*"}):
            return True
        for _ in range(_SWAPS):
            try:
                there, etag = self._get(url)
            except errors.OutputNotFound:  # gone again
                condition = {"IfNoneMatch": "*"}
            except errors.OutputDenied:  # may write only: then the last one wins
                condition = {}
            else:
                if keeps(there):
                    return False
                condition = {"IfMatch": etag}
            if self._put(url, data, content_type, condition):
                return True
        raise errors.OutputUnavailable(f"others keep writing {url}; try again", param="output")

    def _put(self, url: str, data: bytes, content_type: str, condition: dict[str, str]) -> bool:
        """False if the condition does not hold."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, key = _bucket_key(url)
        put: Any = self._s3().put_object
        try:
            put(Bucket=bucket, Key=key, Body=data, ContentType=content_type, **condition)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _UNMET:
                return False
            if code in _NO_CONDITIONS and condition:
                return self._put(url, data, content_type, {})
            raise _output_error(code, url, bucket, str(error)) from error
        except BotoCoreError as error:
            raise _botocore_error(url, error) from error
        return True

    def read(self, url: str) -> bytes:
        """Raises OutputNotFound, OutputDenied, OutputUnavailable."""
        if url.startswith("file:"):
            return _read_file(file_path(url))
        return self._get(url)[0]

    def list(self, prefix: str) -> Iterator[str]:
        """URLs of the objects whose URL begins so, in the order of their names.

        Raises:
            OutputNotFound: no such bucket. OutputDenied, OutputUnavailable.
        """
        if prefix.startswith("file:"):
            folder = file_path(prefix)
            found = sorted(folder.iterdir()) if folder.is_dir() else []
            return (path.as_uri() for path in found if path.is_file() and path.name[0] != ".")
        return self._list_s3(prefix)

    def _list_s3(self, prefix: str) -> Iterator[str]:
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, key = _bucket_key(prefix)
        try:
            for page in (
                self._s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            ):
                for item in page.get("Contents", ()):
                    yield f"s3://{bucket}/{quote(item['Key'])}"
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise _output_error(code, prefix, bucket, str(error)) from error
        except BotoCoreError as error:
            raise _botocore_error(prefix, error) from error

    def delete(self, url: str) -> None:
        """What is not there is fine."""
        if url.startswith("file:"):
            file_path(url).unlink(missing_ok=True)
            return
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, key = _bucket_key(url)
        try:
            self._s3().delete_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise _output_error(error.response["Error"]["Code"], url, bucket, str(error)) from error
        except BotoCoreError as error:
            raise _botocore_error(url, error) from error

    def _get(self, url: str) -> tuple[bytes, str]:
        """The object, and its ETag."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, key = _bucket_key(url)
        try:
            reply = self._s3().get_object(Bucket=bucket, Key=key)
            data = reply["Body"].read()
        except ClientError as error:
            raise _output_error(error.response["Error"]["Code"], url, bucket, str(error)) from error
        except BotoCoreError as error:
            raise _botocore_error(url, error) from error
        # boto3 reports a body that ends early as success.
        if len(data) != reply["ContentLength"]:
            raise errors.OutputUnavailable(
                f"{url} gave {len(data)} bytes of {reply['ContentLength']}; try again"
            )
        return data, reply["ETag"]


def _write_file(path: Path, data: bytes, keeps: Callable[[bytes], bool]) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".videoqa-", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
            # mkstemp's 0600 would keep a backend app of another user out.
            Path(name).chmod(0o644)
            with _locked(path.parent):
                if path.is_file() and keeps(path.read_bytes()):
                    Path(name).unlink()
                    return False
                Path(name).replace(path)
            return True
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in _FOR_GOOD:
            raise errors.OutputDenied(
                f"may not write {path}: {error.strerror}; check the name and the folder's permissions",
                param="output",
            ) from error
        raise errors.OutputUnavailable(
            f"can't write {path}: {error.strerror or error}", param="output"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock, where there are locks; not for long, whoever else holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        until_s = time.monotonic() + _LOCK_S
        while time.monotonic() < until_s:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise errors.OutputNotFound(f"{path} does not exist") from error
    except OSError as error:
        raise errors.OutputDenied(f"can't read {path}: {error.strerror or error}") from error


def _bucket_key(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, unquote(parts.path.lstrip("/"))


def _output_error(code: str, url: str, bucket: str, text: str) -> errors.OutputError:
    if code == "NoSuchBucket":
        return errors.OutputNotFound(
            f"bucket {bucket} does not exist; create it first", param="output"
        )
    if code in _MISSING:
        return errors.OutputNotFound(f"{url} does not exist", param="output")
    if code in _DENIED:
        return errors.OutputDenied(
            f"access to {url} was denied ({code}); check the credentials and the bucket's policy",
            param="output",
        )
    return errors.OutputUnavailable(f"{url}: {text}", param="output")


def _botocore_error(url: str, error: Exception) -> errors.OutputError:
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return errors.OutputDenied(
            f"no credentials for {url}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
            param="output",
        )
    return errors.OutputUnavailable(f"{url}: {error}", param="output")
