"""s3://bucket/key[?versionId=...]: one request for some bytes of an object.

Every range after the first is tied to the first one's ETag, and to its version where the
bucket keeps versions: then an object that is replaced meanwhile is still read to its end.
The only module of the worker's fetching that knows boto3.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

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
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources.checksums import Digest, of_object
from videoqa_worker.sources.ranges.reader import Answer, EndedEarly, Version, Wanted
from videoqa_worker.sources.ranges.transfer import Transfer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Reader", "S3Source"]

_CHUNK_BYTES = 256 << 10
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


class S3Source:
    """Thread-safe. The client is made at the first use: it takes 100 ms and 20 MB."""

    def __init__(self, config: SourceConfig, endpoint_url: str | None) -> None:
        self._config = config
        self._endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def reader(self, transfer: Transfer) -> S3Reader:
        return S3Reader(transfer, self._client)

    def _client(self) -> S3Client:
        with self._lock:  # making clients from the default session is not thread-safe
            if self._made is None:
                self._made = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._endpoint_url,
                    config=Config(
                        connect_timeout=self._config.connect_timeout_s,
                        read_timeout=self._config.read_timeout_s,
                        retries={"mode": "standard", "max_attempts": 3},
                        max_pool_connections=64,
                        # Its own check compares a range with the whole object's checksum
                        # where a store sends that; `digest` reads it instead.
                        response_checksum_validation="when_required",
                    ),
                )
            return self._made


class S3Reader:
    """A `Reader` of one object."""

    def __init__(self, transfer: Transfer, client: Callable[[], S3Client]) -> None:
        self._transfer = transfer
        self._client = client
        self._named = _named(transfer.url)
        self._by_version = "VersionId" not in self._named
        """Whether a version that the store told may be asked for."""

    def close(self) -> None:
        """Connections belong to the client that all objects share."""

    @contextmanager
    def get(self, wanted: Wanted, version: Version | None = None) -> Iterator[Answer]:
        """See `Reader.get`; which status is which error: `_refusal`."""
        with _ours(self._transfer, first=version is None):
            answer = self._asked(wanted, version)
            with closing(answer["Body"]):
                yield _answer(answer)

    def digest(self, version: Version) -> Digest | None:
        """By a HEAD, since S3 gives no checksum with a range. None if it may not be asked."""
        try:
            with _ours(self._transfer, first=False):
                self._transfer.asked()
                answer = self._client().head_object(**self._pinned(version), ChecksumMode="ENABLED")
        except SourceError:  # the bytes are there; only whether they are right is not told
            return None
        return of_object(answer["ResponseMetadata"]["HTTPHeaders"])

    def _asked(self, wanted: Wanted, version: Version | None) -> Any:
        span: dict[str, Any] = {}
        if wanted is not None:
            start, end = wanted
            span["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        while True:
            pinned = self._pinned(version)
            self._transfer.asked()
            try:
                answer: Any = self._client().get_object(**pinned, **span)
            except ClientError as error:
                self._transfer.asked(error.response["ResponseMetadata"].get("RetryAttempts", 0))
                if not _lacks_right_to_versions(error, {*pinned} - {*self._named}):
                    raise
                self._by_version = False
            else:
                self._transfer.asked(answer["ResponseMetadata"].get("RetryAttempts", 0))
                return answer

    def _pinned(self, version: Version | None) -> dict[str, Any]:
        pinned = dict(self._named)
        if version is not None:
            if version.etag is not None:
                pinned["IfMatch"] = version.etag
            if self._by_version and version.version_id not in (None, "null"):
                pinned["VersionId"] = version.version_id
        return pinned


def _named(url: str) -> dict[str, Any]:
    """An S3 URL is not quoted: all after the bucket is the key, but for the version."""
    bucket, _, key = url[len("s3://") :].partition("/")
    key, mark, version_id = key.partition("?versionId=")
    named = {"Bucket": bucket, "Key": key}
    return named | {"VersionId": version_id} if mark else named


def _lacks_right_to_versions(error: ClientError, added: set[str]) -> bool:
    """A named version needs s3:GetObjectVersion, where the object itself needs less."""
    refused = error.response["ResponseMetadata"].get("HTTPStatusCode") == 403
    return refused and "VersionId" in added


def _answer(answer: Any) -> Answer:
    length_bytes = int(answer["ContentLength"])
    start, total_bytes = 0, length_bytes
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange", ""))
    if match is not None:
        start, total_bytes = int(match[1]), int(match[2])
    etag = answer.get("ETag")
    return Answer(
        start=start,
        end=start + length_bytes,
        total_bytes=total_bytes,
        partial=match is not None,
        continuable=True,
        version=Version(etag=etag, version_id=answer.get("VersionId"), condition=etag),
        chunks=_chunks(answer["Body"]),
    )


def _chunks(body: Any) -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(_CHUNK_BYTES)
    except (IncompleteReadError, ResponseStreamingError, ReadTimeoutError) as error:
        raise EndedEarly from error


@contextmanager
def _ours(transfer: Transfer, *, first: bool) -> Iterator[None]:
    """boto3's exceptions become ours."""
    try:
        yield
    except ClientError as error:
        raise _refusal(error, transfer, first) from error
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


def _refusal(error: ClientError, transfer: Transfer, first: bool) -> SourceError:
    details = error.response.get("Error", {})
    code = str(details.get("Code", "?"))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    what = f"{transfer.shown}: S3 answered {code}"
    if status == 416 and first:
        return SourceEmpty(f"{transfer.shown} has 0 bytes, expected a video or an image")
    if code == "NoSuchBucket":
        return BucketNotFound(f"{what}; check the bucket's name, its region and the endpoint")
    if code in _SLOW_CODES or status >= 500:
        status = 429
    kind, hint = _BY_STATUS.get(status, (SourceHttpError, str(details.get("Message", ""))))
    return kind(f"{what}; {_DENIED_HINTS.get(code, hint)}")
