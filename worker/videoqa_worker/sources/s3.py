"""s3://bucket/key[?versionId=...] inputs: one range request for an object at a time.

Each range after the first is pinned to the first one's ETag, and to its version where the bucket
keeps versions: then an object that is replaced meanwhile is still read to its end. The only module
of the sources that knows boto3.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
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

from videoqa.contract import parse_s3_url
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
from videoqa.redaction import redact_text, redact_url
from videoqa.storage import STRANGE_REPLIES, bound_error_bodies
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources.checksums import Digest, read_object_digest
from videoqa_worker.sources.content_coding import BodyCut, find_codings, inflate, make_cut_error
from videoqa_worker.sources.ranges.account import FetchAccount
from videoqa_worker.sources.ranges.range_reader import (
    ByteRange,
    EndedEarly,
    RangeRefused,
    RangeResponse,
    Version,
    parse_content_range,
)
from videoqa_worker.sources.store_errors import StoreError, explain_store_error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Reader", "S3Source"]

_CHUNK_BYTES = 32 << 10
"""Short enough for the least rate: a chunk is counted once it has come whole."""
_CODE = re.compile(r"[A-Za-z0-9_.]{1,64}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_BY_STATUS: dict[int, tuple[type[SourceError], str]] = {
    401: (SourceDenied, "the worker's key or role is not accepted there"),
    403: (SourceDenied, "the worker's key or role needs s3:GetObject on it"),
    404: (SourceNotFound, "check the key, and the version if one is named"),
    412: (InputChanged, "the object changed while it was read; try again"),
    416: (InputChanged, "the object became shorter while it was read; try again"),
    429: (SourceUnavailable, "the store is unavailable; try again later"),
}


class S3Source:
    """Makes a reader for each object; thread-safe.

    The client is created at the first use, since it takes 100 ms and 20 MB.
    """

    def __init__(self, config: SourceConfig, endpoint_url: str | None) -> None:
        self._config = config
        self._endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def reader(self, account: FetchAccount) -> S3Reader:
        return S3Reader(account, self._client)

    def _client(self) -> S3Client:
        with self._lock:  # creating clients from the default session is not thread-safe
            if self._made is None:
                client = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._endpoint_url,
                    config=Config(
                        connect_timeout=self._config.connect_timeout_s,
                        read_timeout=self._config.read_timeout_s,
                        retries={"mode": "standard", "max_attempts": 3},
                        max_pool_connections=64,
                        # boto3's own check compares a range with the whole object's checksum
                        # where a store sends that; `fetch_digest` reads it instead.
                        response_checksum_validation="when_required",
                    ),
                )
                bound_error_bodies(client)
                self._made = client
            return self._made


class S3Reader:
    """A `RangeReader` of one object."""

    def __init__(self, account: FetchAccount, client: Callable[[], S3Client]) -> None:
        self._account = account
        self._client = client
        self._named = _parse_url(account.url)
        self._by_version = "VersionId" not in self._named
        """True while requests may name the version that the store reported."""
        self._bodies: set[Any] = set()
        """Bodies that are being read."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends the bodies under way, whose threads may wait long for a chunk that drips.

        The client, which all objects share, drops their connections.
        """
        with self._lock:
            for body in self._bodies:
                with suppress(Exception):  # it ends meanwhile, by itself
                    body._raw_stream.shutdown()  # botocore has no other way to its connection

    @contextmanager
    def _reading(self, body: Any) -> Iterator[None]:
        with self._lock:
            self._bodies.add(body)
        try:
            with closing(body):
                yield
        finally:
            with self._lock:
                self._bodies.discard(body)

    @contextmanager
    def get(self, wanted: ByteRange, version: Version | None = None) -> Iterator[RangeResponse]:
        """Sends one request; see `RangeReader.get`, and `_explain_refusal` for the errors."""
        with _translate_errors(self._account, first=version is None):
            with _refuse_strange(self._account):
                response = self._request(wanted, version)
                found = _read_response(response, self._account)
            with self._reading(response["Body"]):
                self._account.tick()  # the caller may have left before the body was known here
                yield found

    def find_page(self, head: bytes) -> None:
        """Returns None: an object has no page, and what it is its bytes tell."""

    def fetch_digest(self, version: Version) -> Digest | None:
        """Fetches the digest by a HEAD, since S3 sends none with a range; None if that is refused."""
        try:
            with _translate_errors(self._account, first=False), _refuse_strange(self._account):
                self._account.count_requests()
                response = self._client().head_object(
                    **self._make_arguments(version), ChecksumMode="ENABLED"
                )
        except SourceError:  # the bytes can be used without a digest
            return None
        return read_object_digest(response["ResponseMetadata"]["HTTPHeaders"])

    def _request(self, wanted: ByteRange, version: Version | None) -> Any:
        span: dict[str, Any] = {}
        if wanted is not None:
            start, end = wanted
            span["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        while True:
            arguments = self._make_arguments(version)
            self._account.count_requests()
            try:
                response: Any = self._client().get_object(**arguments, **span)
            except ClientError as error:
                self._account.count_requests(
                    error.response["ResponseMetadata"].get("RetryAttempts", 0)
                )
                if not _lacks_right_to_versions(error, {*arguments} - {*self._named}):
                    raise
                self._by_version = False
            else:
                self._account.count_requests(response["ResponseMetadata"].get("RetryAttempts", 0))
                return response

    def _make_arguments(self, version: Version | None) -> dict[str, Any]:
        arguments = dict(self._named)
        if self._account.config.requester_pays:
            arguments["RequestPayer"] = "requester"
        if version is not None:
            if version.etag is not None:
                arguments["IfMatch"] = version.etag
            if self._by_version and version.version_id not in (None, "null"):
                arguments["VersionId"] = version.version_id
        return arguments


def _parse_url(url: str) -> dict[str, Any]:
    """Returns what names the object in boto3's calls."""
    try:
        found = parse_s3_url(url)
    except ValueError as error:
        raise BucketNotFound(f"{redact_url(url)} names no valid bucket and key: {error}") from error
    named = {"Bucket": found.bucket, "Key": found.key}
    return named if found.version_id is None else named | {"VersionId": found.version_id}


def _lacks_right_to_versions(error: ClientError, added: set[str]) -> bool:
    """Returns True if only the version was refused, which needs s3:GetObjectVersion."""
    refused = error.response["ResponseMetadata"].get("HTTPStatusCode") == 403
    return refused and "VersionId" in added


def _read_response(response: Any, account: FetchAccount) -> RangeResponse:
    codings = find_codings(response.get("ContentEncoding") or "")
    etag = response.get("ETag")
    version = Version(etag=etag, version_id=response.get("VersionId"), condition=etag)
    if codings:
        if response.get("ContentRange"):
            response["Body"].close()
            raise RangeRefused
        return RangeResponse.of_coded(version, _iter_plain(response["Body"], codings, account))
    length_bytes = int(response["ContentLength"])
    partial = response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 206
    extent: tuple[int, int | None, int | None] = 0, length_bytes, length_bytes
    if partial:
        extent = parse_content_range(response.get("ContentRange", ""))
    start, end, total_bytes = extent
    return RangeResponse(
        start=start,
        end=end,
        total_bytes=total_bytes,
        partial=partial,
        continuable=True,
        version=version,
        chunks=account.meter(_iter_chunks(response["Body"])),
    )


def _iter_chunks(body: Any) -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(_CHUNK_BYTES)
    except (IncompleteReadError, ResponseStreamingError, ReadTimeoutError) as error:
        raise EndedEarly from error


def _iter_plain(body: Any, codings: tuple[str, ...], account: FetchAccount) -> Iterator[bytes]:
    try:
        yield from inflate(
            account.meter(_iter_chunks(body)), codings, account.shown_url, account.count_made
        )
    except BodyCut as error:
        raise make_cut_error(account.shown_url) from error


@contextmanager
def _translate_errors(account: FetchAccount, *, first: bool) -> Iterator[None]:
    """Translates boto3's exceptions into ours."""
    try:
        yield
    except ClientError as error:
        raise _explain_refusal(error, account, first) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise SourceDenied(
            f"{account.shown_url}: the worker has no S3 credentials; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile or a role"
        ) from error
    except (ConnectTimeoutError, ReadTimeoutError) as error:
        raise SourceTimeout(f"{account.shown_url}: S3 did not answer in time; try again") from error
    except ParamValidationError as error:
        raise BucketNotFound(
            f"{account.shown_url} names no valid bucket and key; expected s3://bucket/key"
        ) from error
    except (BotoConnectionError, HTTPClientError) as error:
        raise SourceUnreachable(
            f"{account.shown_url}: no connection to S3 ({redact_text(str(error))}); check the endpoint"
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise SourceHttpError(
            f"{account.shown_url}: the request to S3 failed: {redact_text(str(error))}; check the URL and the endpoint"
        ) from error


@contextmanager
def _refuse_strange(account: FetchAccount) -> Iterator[None]:
    """Translates what boto3's parser and ours raise at a reply that no store would send; a proxy may, for once."""
    try:
        yield
    except STRANGE_REPLIES as error:
        raise SourceUnavailable(
            f"{account.shown_url}: got a reply that is none of S3 ({type(error).__name__}), expected a store "
            "that speaks S3; check the endpoint, and try again"
        ) from error


def _explain_refusal(error: ClientError, account: FetchAccount, first: bool) -> SourceError:
    details = error.response.get("Error", {})
    code = str(details.get("Code", "?"))
    code = code if _CODE.fullmatch(code) else "?"
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    what = f"{account.shown_url}: S3 answered HTTP {status}"
    if status == 416 and first:
        return SourceEmpty(f"{account.shown_url} has 0 bytes, expected a video or an image")
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = str(details.get("Region") or headers.get("x-amz-bucket-region") or "")
    region = region if _REGION.fullmatch(region) else ""
    found = StoreError(code, str(details.get("Message", ""))[:2000], region or None)
    if status not in (412, 416) and (explained := explain_store_error(found, what, signed=False)):
        return explained
    if status >= 500:
        status = 429
    # The store's own text is left out: it may repeat the request, with its signature.
    kind, hint = _BY_STATUS.get(status, (SourceHttpError, "check the URL and the endpoint"))
    return kind(f"{what} ({code}); {hint}")
