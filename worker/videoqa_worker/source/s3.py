"""s3://bucket/key[?versionId=...] into a file, by ranges of known length.

A body of boto3 that ends early can look complete, and is never retried. So the object is
read range by range, each counted against its length and tried again on its own, and each
tied to the first one's ETag. The only module of the worker's fetching that knows boto3.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from videoqa.errors import (
    BucketNotFound,
    InputChanged,
    SourceDenied,
    SourceEmpty,
    SourceError,
    SourceHttpError,
    SourceNotFound,
    SourceTimeout,
    SourceUnavailable,
    SourceUnreachable,
)
from videoqa_worker.source.config import SourceConfig
from videoqa_worker.source.local import LocalCopy
from videoqa_worker.source.transfer import Transfer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Source"]

_CHUNK_BYTES = 1 << 20
_RETRY_PAUSE_S = 0.2
_SLOW_CODES = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError")
_DENIED_HINTS = {
    "InvalidAccessKeyId": "the worker's access key id is unknown there",
    "SignatureDoesNotMatch": "the worker's secret key is wrong",
    "ExpiredToken": "the worker's session token has expired",
    "RequestTimeTooSkewed": "the worker's clock is wrong",
    "InvalidObjectState": "the object is archived; restore it first",
}

_BY_STATUS: dict[int, tuple[type[SourceError], str]] = {
    401: (SourceDenied, "the worker's key or role is not accepted there"),
    403: (SourceDenied, "the worker's key or role needs s3:GetObject on it"),
    404: (SourceNotFound, "check the key, and the version if one is named"),
    412: (InputChanged, "the object changed while it was read; try again"),
    416: (InputChanged, "the object became shorter while it was read; try again"),
    429: (SourceUnavailable, "not now; try again later"),
}


class _Short(Exception):
    """A range came with fewer bytes than it has."""


class S3Source:
    """Thread-safe. The client is made at the first use: it takes 100 ms and 20 MB."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def fetch(self, transfer: Transfer, path: Path) -> LocalCopy:
        """Raises SourceError of many kinds; see `_refusal`."""
        transfer.tick()
        wanted = _wanted(transfer.url)
        etag: str | None = None
        version_id: str | None = None
        with _ours(transfer), path.open("wb") as file:
            while transfer.total_bytes is None or transfer.received_bytes < transfer.total_bytes:
                answer = self._range(transfer, wanted, file)
                etag = answer.get("ETag")
                version_id = answer.get("VersionId")
                wanted |= {"IfMatch": etag} if etag else {}
        return LocalCopy(
            path,
            transfer.received_bytes,
            transfer.fetched_bytes,
            etag.strip('"') if etag else None,
            version_id,
        )

    def _client(self) -> S3Client:
        with self._lock:  # making clients from the default session is not thread-safe
            if self._made is None:
                self._made = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._config.s3_endpoint_url,
                    config=Config(
                        connect_timeout=self._config.connect_timeout_s,
                        read_timeout=self._config.read_timeout_s,
                        retries={"mode": "standard", "max_attempts": 3},
                        max_pool_connections=32,
                    ),
                )
            return self._made

    def _range(self, transfer: Transfer, wanted: dict[str, Any], file: BinaryIO) -> dict[str, Any]:
        start = transfer.received_bytes
        last = start + self._config.s3_range_bytes - 1
        for attempt in range(1, self._config.s3_range_attempts + 1):
            answer: Any = self._client().get_object(**wanted, Range=f"bytes={start}-{last}")
            try:
                _receive(answer, transfer, file)
                return dict(answer)
            except (_Short, IncompleteReadError, ResponseStreamingError, ReadTimeoutError) as error:
                failure = error
            transfer.rewind(start)
            file.seek(start)
            transfer.pause(_RETRY_PAUSE_S * attempt)
        raise SourceUnavailable(
            f"{transfer.shown} ended early {attempt} times in the range from byte {start} on; "
            "try again later"
        ) from failure


def _wanted(url: str) -> dict[str, Any]:
    """An S3 URL is not quoted: all after the bucket is the key, but for the version."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    key, mark, version_id = key.partition("?versionId=")
    wanted = {"Bucket": bucket, "Key": key}
    return wanted | {"VersionId": version_id} if mark else wanted


def _receive(answer: dict[str, Any], transfer: Transfer, file: BinaryIO) -> None:
    length = int(answer["ContentLength"])
    of_total = re.search(r"/(\d+)$", answer.get("ContentRange", ""))
    transfer.expect(int(of_total[1]) if of_total else length)
    came = 0
    for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
        file.write(chunk)
        came += len(chunk)
        transfer.add(len(chunk))
    if came != length:
        raise _Short
    if transfer.total_bytes == 0:
        raise SourceEmpty(f"{transfer.shown} has 0 bytes, expected a video or an image")


@contextmanager
def _ours(transfer: Transfer) -> Iterator[None]:
    """boto3's exceptions become ours."""
    try:
        yield
    except ClientError as error:
        raise _refusal(error, transfer) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise SourceDenied(
            f"{transfer.shown}: the worker has no S3 credentials; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile or a role"
        ) from error
    except (ConnectTimeoutError, ReadTimeoutError) as error:
        raise SourceTimeout(f"{transfer.shown}: S3 did not answer in time; try again") from error
    except ParamValidationError as error:
        raise BucketNotFound(f"{transfer.shown} names no valid bucket and key") from error
    except (BotoConnectionError, HTTPClientError) as error:
        raise SourceUnreachable(
            f"{transfer.shown}: no connection to S3 ({error}); check the endpoint"
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise SourceHttpError(f"{transfer.shown}: S3 cannot be asked: {error}") from error


def _refusal(error: ClientError, transfer: Transfer) -> SourceError:
    details = error.response.get("Error", {})
    code = str(details.get("Code", "?"))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    what = f"{transfer.shown}: S3 answered {code}"
    if status == 416 and not transfer.received_bytes:
        return SourceEmpty(f"{transfer.shown} has 0 bytes, expected a video or an image")
    if code == "NoSuchBucket":
        return BucketNotFound(f"{what}; check the bucket's name, its region and the endpoint")
    if code in _SLOW_CODES or status >= 500:
        status = 429
    kind, hint = _BY_STATUS.get(status, (SourceHttpError, str(details.get("Message", ""))))
    return kind(f"{what}; {_DENIED_HINTS.get(code, hint)}")
