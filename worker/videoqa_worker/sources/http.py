"""http:// and https:// inputs: one guarded range request at a time.

Each hop of a redirect is parsed, resolved and checked like the first URL. All requests of one file
share its connections and resolved addresses, and go straight to the URL that the first one was
redirected to. Knows neither the content of the bytes nor which of them are needed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from ssl import SSLCertVerificationError, SSLContext
from urllib.parse import quote, unquote, urljoin

import httpcore2

from videoqa.contract import split_url
from videoqa.errors import (
    AddressForbidden,
    InputChanged,
    NotAVideo,
    SourceDenied,
    SourceEmpty,
    SourceError,
    SourceHttpError,
    SourceNotFound,
    SourceTimeout,
    SourceUnavailable,
    SourceUnreachable,
)
from videoqa.net import Resolve
from videoqa.redaction import redact_text, redact_url
from videoqa_worker.sources.addresses import GuardedBackend
from videoqa_worker.sources.checksums import Digest
from videoqa_worker.sources.http_response import (
    make_header_error,
    read_error_body,
    read_fields,
    read_response,
)
from videoqa_worker.sources.ranges.account import FetchAccount
from videoqa_worker.sources.ranges.range_reader import (
    ByteRange,
    RangeRefused,
    RangeResponse,
    Version,
)
from videoqa_worker.sources.store_errors import explain_store_error, read_store_error
from videoqa_worker.sources.web_pages import find_page

__all__ = ["HttpReader", "HttpSource"]

MAX_REDIRECTS = 5
_TOO_LONG = 431
"""The status that h11's error names for a header that has not ended after 100 kB."""
_JOIN_TIMEOUT_S = 2.0
"""Time for threads whose connections were just shut down, which end within milliseconds."""


class HttpSource:
    """Makes a reader for each URL; thread-safe. Holds the TLS context, which takes 20 ms to load."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    @cached_property
    def _tls(self) -> SSLContext:
        return httpcore2.default_ssl_context()

    def reader(self, account: FetchAccount) -> HttpReader:
        return HttpReader(account, GuardedBackend(account, self._resolve), self._tls)


class HttpReader:
    """A `RangeReader` of one URL."""

    def __init__(self, account: FetchAccount, backend: GuardedBackend, tls: SSLContext) -> None:
        self._account = account
        self._backend = backend
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls, network_backend=backend, retries=0, max_connections=None
        )
        self._final_url = account.url
        """The URL that the last response came from, after all redirects."""
        self._content_type = ""

    def close(self) -> None:
        """Ends requests under way; closes sockets only if no thread reads them any more."""
        self._backend.shut_down_connections()
        if self._account.join_threads(_JOIN_TIMEOUT_S):
            self._pool.close()

    def find_page(self, head: bytes) -> NotAVideo | None:
        return find_page(self._account.url, self._final_url, self._content_type, head)

    def fetch_digest(self, version: Version) -> Digest | None:
        """Returns None: an HTTP server sends a digest with each response, or never."""
        return None

    @contextmanager
    def get(self, wanted: ByteRange, version: Version | None = None) -> Iterator[RangeResponse]:
        """Sends one request; see `RangeReader.get`, and `_check_status` for the errors."""
        with _translate_errors(self._account), self._follow_redirects(wanted, version) as response:
            fields = read_fields(response, self._account.shown_url)
            if response.status not in (200, 206, 204, 205):
                _explain_by_store(response, fields, self._account)
            _check_status(response.status, fields, self._account, wanted, version)
            self._content_type = fields.get("content-type", "")
            yield read_response(response, fields, self._account)

    @contextmanager
    def _follow_redirects(
        self, wanted: ByteRange, version: Version | None
    ) -> Iterator[httpcore2.Response]:
        """Yields the response at the end of all redirects."""
        account = self._account
        url = self._final_url if version else account.url
        again = url != account.url
        hops = 0
        while hops <= MAX_REDIRECTS:
            headers = _make_headers(url, account.url, wanted, version)
            account.count_requests()
            with self._pool.stream("GET", _make_target(url), headers=headers) as response:
                if response.status in (301, 302, 303, 307, 308) and _leads_on(response):
                    url, hops = _resolve_redirect(url, response), hops + 1
                elif again and response.status in (400, 401, 403, 404, 410):
                    # The redirect's target, for example a presigned URL, has expired (400: Google's, or its
                    # session): start over.
                    url, again = account.url, False
                else:
                    self._final_url = url
                    yield response
                    return
        raise SourceHttpError(
            f"{account.shown_url} redirects more than {MAX_REDIRECTS} times, expected the "
            "video; check the URL"
        )


def _make_target(url: str) -> httpcore2.URL:
    parts = split_url(url)
    host, port = _parse_authority(url)
    # Quoted characters stay as they are.
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]{}|\"")
    return httpcore2.URL(
        scheme=parts.scheme.encode(), host=host.encode(), port=port, target=target.encode()
    )


def _parse_authority(url: str) -> tuple[str, int | None]:
    """Returns the host in ASCII, and the port."""
    try:
        parts = split_url(url)
        host = parts.hostname or ""
        return (host if host.isascii() else host.encode("idna").decode()), parts.port
    except ValueError as error:  # UnicodeError is one
        raise SourceHttpError(
            f"got {redact_url(url)}, which has no valid host and port; check the URL"
        ) from error


def _make_headers(
    url: str, first_url: str, wanted: ByteRange, version: Version | None
) -> list[tuple[str, str]]:
    parts = split_url(url)
    name, port = _parse_authority(url)
    host = (f"[{name}]" if ":" in name else name) + (f":{port}" if port else "")
    headers = [("Host", host), ("User-Agent", "videoqa"), ("Accept-Encoding", "identity")]
    first = split_url(first_url)
    # Redirects mostly repeat the host without the user.
    same_origin = (parts.scheme, name, port) == (first.scheme, *_parse_authority(first_url))
    if first.username is not None and same_origin:
        pair = f"{unquote(first.username)}:{unquote(first.password or '')}"
        headers.append(("Authorization", "Basic " + base64.b64encode(pair.encode()).decode()))
    if wanted is not None:
        start, end = wanted
        headers.append(("Range", f"bytes={start}-{'' if end is None else end - 1}"))
        if version is not None and version.condition is not None:
            headers.append(("If-Range", version.condition))
    return headers


def _leads_on(response: httpcore2.Response) -> bool:
    """Returns False for a redirect without a Location that has a body: S3 tells the bucket's region in it."""
    names = {name.lower() for name, _ in response.headers}
    return b"location" in names or b"content-type" not in names


def _resolve_redirect(url: str, response: httpcore2.Response) -> str:
    location = read_fields(response, redact_url(url)).get("location")
    if not location:
        raise SourceHttpError(f"{redact_url(url)} redirects without a Location; check the URL")
    try:
        hop = urljoin(url, _decode_location(location))
        scheme = split_url(hop).scheme
    except ValueError as error:  # brackets that are no IPv6 address, say
        raise SourceHttpError(
            f"{redact_url(url)} redirects to an invalid URL; check the URL"
        ) from error
    from_https = split_url(url).scheme == "https"  # a URL may write its scheme in capitals
    if scheme not in ("http", "https") or (from_https and scheme != "https"):
        raise AddressForbidden(
            f"{redact_url(url)} redirects to {scheme}://, expected https (or http from http); "
            "use the URL that it should lead to"
        )
    return hop


def _decode_location(location: str) -> str:
    """Decodes UTF-8, which servers put into the field and `read_fields` reads as Latin-1."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeDecodeError:
        return location


def _check_status(
    status: int,
    fields: Mapping[str, str],
    account: FetchAccount,
    wanted: ByteRange,
    version: Version | None,
) -> None:
    if status == 200 or (status == 206 and wanted is not None):
        return
    what = f"{account.shown_url} answered HTTP {status}"
    if status in (204, 205):
        raise SourceEmpty(f"{what}: it has no content, expected a video or an image")
    if status in (300, 301, 302, 303, 307, 308):
        raise SourceHttpError(f"{what} without a Location, expected the video; check the URL")
    if status in (404, 410):
        raise SourceNotFound(f"{what}: there is no file; check the URL")
    if status in (401, 403):
        raise SourceDenied(f"{what}: reading is forbidden; a presigned URL may have expired")
    if status == 412:
        raise InputChanged(f"{what}: it changed while it was read; try again")
    if status == 416 and wanted is not None:
        raise _explain_416(what, fields, version)
    if status in (408, 425, 429) or status >= 500:
        raise SourceUnavailable(f"{what}: the server is unavailable; try again later")
    raise SourceHttpError(f"{what}, expected 200; check the URL")


def _explain_by_store(
    response: httpcore2.Response, fields: Mapping[str, str], account: FetchAccount
) -> None:
    """Raises the error that an object store describes in its answer, if it does."""
    if response.status in (408, 412, 416, 425, 429):
        return
    found = read_store_error(read_error_body(response), fields)
    what = f"{account.shown_url} answered HTTP {response.status}"
    explained = explain_store_error(found, what, signed=True) if found else None
    if explained is not None:
        raise explained


def _explain_416(what: str, fields: Mapping[str, str], version: Version | None) -> Exception:
    """Returns the error for a range beyond the end: a shorter file, an empty one, or neither."""
    if version is not None:
        return InputChanged(f"{what}: it became shorter while it was read; try again")
    if fields.get("content-range", "").strip() == "bytes */0":
        return SourceEmpty(f"{what}: it has 0 bytes, expected a video or an image")
    return RangeRefused()


@contextmanager
def _translate_errors(account: FetchAccount) -> Iterator[None]:
    """Translates httpcore's exceptions into ours."""
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise SourceTimeout(
            f"{account.shown_url} sent nothing for {account.config.read_timeout_s:g} s "
            f"(or did not connect within {account.config.connect_timeout_s:g} s); try again"
        ) from error
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
        raise _explain_unreachable(account, error) from error
    except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol) as error:
        raise SourceHttpError(
            f"{account.shown_url} cannot be fetched: {redact_text(str(error))}; check the URL"
        ) from error


def _explain_unreachable(account: FetchAccount, error: Exception) -> SourceError:
    refused = error.__cause__ or error.__context__
    if getattr(refused, "error_status_hint", None) == _TOO_LONG:
        return make_header_error(account.shown_url)
    if isinstance(refused, SSLCertVerificationError):
        return SourceHttpError(
            f"the certificate of {account.shown_url} is not valid: {refused.verify_message}; expected "
            "one for this host by an authority that the worker trusts (SSL_CERT_FILE names others)"
        )
    # The library quotes what came, and a server may send the request back, with its password and signature.
    said = isinstance(error, httpcore2.NetworkError)
    why = (str(error) or type(error).__name__) if said else "it sent what is no HTTP response"
    return SourceUnreachable(
        f"no connection to {account.shown_url}: {why}; "
        "check host and port, and whether the worker's network reaches it"
    )
