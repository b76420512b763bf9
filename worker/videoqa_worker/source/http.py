"""http:// and https:// into a file, guarded and resumed.

Each hop of a redirect is a URL like the first: parsed, resolved, checked. A body that ends
early is continued where it ended, if the server can name the bytes it sends by a validator,
and fetched anew if not. Knows nothing of what the bytes are.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from ssl import SSLContext
from typing import BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpcore2

from videoqa.errors import (
    AddressForbidden,
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
from videoqa.job import redact_url
from videoqa_worker.source.address import GuardedBackend, Resolve
from videoqa_worker.source.local import LocalCopy
from videoqa_worker.source.transfer import Transfer

__all__ = ["HttpSource"]

MAX_REDIRECTS = 5
_RETRY_PAUSE_S = 0.2
"""Doubled each time: a restarting server is back within a second."""


class _EndedEarly(Exception):
    """The connection broke while the body came."""


@dataclass
class _Body:
    """What the first response said about the bytes; later ones must agree."""

    etag: str | None = None
    validator: str | None = None
    """For If-Range: a strong ETag, else Last-Modified (RFC 9110, 13.1.5)."""
    ranges: bool = False


class HttpSource:
    """Thread-safe: it holds nothing but the TLS context, which takes 20 ms to load."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    @cached_property
    def _tls(self) -> SSLContext:
        return httpcore2.default_ssl_context()

    def fetch(self, transfer: Transfer, path: Path) -> LocalCopy:
        """Raises SourceError of many kinds; see `_check_status` and `_ours`."""
        body = _Body()
        with path.open("wb") as file:
            for attempt in range(transfer.config.http_retries + 1):
                try:
                    with self._request(transfer, body) as response:
                        _receive(response, transfer, body, file)
                    break
                except _EndedEarly as error:
                    if attempt == transfer.config.http_retries:
                        raise SourceUnavailable(
                            f"{transfer.shown} ended early {attempt + 1} times, the last time "
                            f"after {transfer.received_bytes} of {transfer.total_bytes or '?'} "
                            "bytes; try again later"
                        ) from error
                    transfer.pause(_RETRY_PAUSE_S * 2**attempt)
        if transfer.received_bytes == 0:
            raise SourceEmpty(f"{transfer.shown} has 0 bytes, expected a video or an image")
        etag = body.etag.strip('"') if body.etag else None
        return LocalCopy(path, transfer.received_bytes, transfer.fetched_bytes, etag, None)

    @contextmanager
    def _request(self, transfer: Transfer, body: _Body) -> Iterator[httpcore2.Response]:
        """The response at the end of all redirects."""
        with (
            _ours(transfer),
            httpcore2.ConnectionPool(
                ssl_context=self._tls,
                network_backend=GuardedBackend(transfer, self._resolve),
                retries=0,
            ) as pool,
        ):
            url = transfer.url
            for _ in range(MAX_REDIRECTS + 1):
                headers = _headers(url, transfer, body)
                with pool.stream("GET", _target(url), headers=headers) as response:
                    if response.status not in (301, 302, 303, 307, 308):
                        yield response
                        return
                    url = _next_hop(url, response)
            raise SourceHttpError(
                f"{transfer.shown} redirects more than {MAX_REDIRECTS} times, expected the video"
            )


def _target(url: str) -> httpcore2.URL:
    parts = urlsplit(url)
    host, port = _authority(url)
    # What is quoted already stays as it is.
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]{}|\"")
    return httpcore2.URL(
        scheme=parts.scheme.encode(), host=host.encode(), port=port, target=target.encode()
    )


def _authority(url: str) -> tuple[str, int | None]:
    """Host in ASCII, and port."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return (host if host.isascii() else host.encode("idna").decode()), parts.port
    except ValueError as error:  # UnicodeError is one
        raise SourceHttpError(f"{redact_url(url)} has no host and port to connect to") from error


def _headers(url: str, transfer: Transfer, body: _Body) -> list[tuple[str, str]]:
    parts = urlsplit(url)
    name, port = _authority(url)
    host = (f"[{name}]" if ":" in name else name) + (f":{port}" if port else "")
    headers = [("Host", host), ("User-Agent", "videoqa"), ("Accept-Encoding", "identity")]
    first = urlsplit(transfer.url)
    same_origin = (parts.scheme, parts.netloc) == (first.scheme, first.netloc)
    if parts.username is not None and same_origin:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers.append(("Authorization", "Basic " + base64.b64encode(pair.encode()).decode()))
    if transfer.received_bytes and body.ranges and body.validator:
        headers.append(("Range", f"bytes={transfer.received_bytes}-"))
        headers.append(("If-Range", body.validator))
    return headers


def _next_hop(url: str, response: httpcore2.Response) -> str:
    location = _fields(response).get("location")
    if not location:
        raise SourceHttpError(f"{redact_url(url)} redirects without saying where to")
    hop = urljoin(url, location)
    scheme = urlsplit(hop).scheme
    if scheme not in ("http", "https") or (url.startswith("https:") and scheme != "https"):
        raise AddressForbidden(
            f"{redact_url(url)} redirects to {scheme}://, expected https (or http from http)"
        )
    return hop


def _fields(response: httpcore2.Response) -> Mapping[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }


def _receive(response: httpcore2.Response, transfer: Transfer, body: _Body, file: BinaryIO) -> None:
    fields = _fields(response)
    _check_status(response.status, fields, transfer)
    _check_same(fields, transfer, body)
    if response.status == 206:
        _check_range(fields, transfer)
    else:
        transfer.rewind(0)
        length = fields.get("content-length", "")
        if length.isdigit():
            transfer.expect(int(length))
    file.seek(transfer.received_bytes)
    file.truncate()
    body.etag = fields.get("etag")
    strong = body.etag if body.etag and not body.etag.startswith("W/") else None
    body.validator = strong or fields.get("last-modified")
    body.ranges = response.status == 206 or fields.get("accept-ranges", "").lower() == "bytes"
    try:
        for chunk in response.iter_stream():
            file.write(chunk)
            transfer.add(len(chunk))
    except (httpcore2.RemoteProtocolError, httpcore2.ReadError) as error:
        raise _EndedEarly from error


def _check_status(status: int, fields: Mapping[str, str], transfer: Transfer) -> None:
    if status == 200 or (status == 206 and transfer.received_bytes):
        coding = fields.get("content-encoding", "identity").lower()
        if coding not in ("identity", ""):
            raise SourceHttpError(
                f"{transfer.shown} came {coding}-compressed though asked for plain bytes"
            )
        return
    what = f"{transfer.shown} answered HTTP {status}"
    if status in (404, 410):
        raise SourceNotFound(f"{what}: there is nothing; check the URL")
    if status in (401, 403):
        raise SourceDenied(f"{what}: reading is forbidden; a presigned URL may have expired")
    if status == 416:
        raise InputChanged(f"{what}: it became shorter while it was read; try again")
    if status == 429 or status >= 500:
        raise SourceUnavailable(f"{what}: not now; try again later")
    raise SourceHttpError(f"{what}, expected 200")


def _check_same(fields: Mapping[str, str], transfer: Transfer, body: _Body) -> None:
    """A part of one file and the rest of another would be a video that never was."""
    if transfer.received_bytes and body.etag and fields.get("etag", body.etag) != body.etag:
        raise InputChanged(f"{transfer.shown} changed while it was read (ETag); try again")


def _check_range(fields: Mapping[str, str], transfer: Transfer) -> None:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", fields.get("content-range", "").strip())
    if match is None or int(match[1]) != transfer.received_bytes:
        raise SourceHttpError(
            f"{transfer.shown} sent another range than bytes={transfer.received_bytes}- "
            f"({fields.get('content-range', 'none')})"
        )
    if match[3] == "*":
        return
    if transfer.total_bytes not in (None, int(match[3])):
        raise InputChanged(f"{transfer.shown} changed its size while it was read; try again")
    transfer.expect(int(match[3]))


@contextmanager
def _ours(transfer: Transfer) -> Iterator[None]:
    """httpcore's exceptions become ours."""
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise SourceTimeout(
            f"{transfer.shown} sent nothing for {transfer.config.read_timeout_s:g} s "
            f"(or did not connect within {transfer.config.connect_timeout_s:g} s); try again"
        ) from error
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
        raise _unreachable(transfer, error) from error
    except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol) as error:
        raise SourceHttpError(f"{transfer.shown} is no URL that can be fetched: {error}") from error


def _unreachable(transfer: Transfer, error: Exception) -> SourceError:
    return SourceUnreachable(
        f"no connection to {transfer.shown}: {error or type(error).__name__}; "
        "check host and port, and whether the worker's network reaches it"
    )
