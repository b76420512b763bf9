"""Calls of receivers: one POST to an address that was checked, whose answer is read as far as its status.

The URL is a stranger's: its name is resolved once, all of its addresses are checked, and one of these is dialled.
Redirects are not followed. Whatever the receiver sends, little of it is read, and for a bounded time.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache

import h11

from videoqa.contract import DEFAULT_PORTS, split_url
from videoqa.net import Network, Resolve, find_forbidden, is_in_networks, resolve_name
from videoqa.net.h11_patterns import make_parser_linear

__all__ = ["CallFailed", "Reply", "Sender", "parse_retry_after"]

make_parser_linear()

_MOST_HEADER_BYTES = 65_536
_MOST_DRAINED_BYTES, _DRAIN_S = 65_536, 0.5
"""Bounds of what is read of an answer's body, so that a receiver that writes it is not cut off."""
_MOST_ADDRESSES = 3
_MOST_WAIT_S = 86_400.0


class CallFailed(Exception):
    """A call that got no answer; the text is short, and tells nothing of our network."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        """
        Arguments:
            is_final: another attempt would meet the same.
        """
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True)
class Reply:
    """The receiver's answer."""

    status: int
    retry_after_s: float | None = None


@cache
def _make_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class Sender:
    """Calls receivers by URLs of strangers."""

    def __init__(
        self,
        *,
        timeout_s: float,
        networks: Sequence[Network] = (),
        resolve: Resolve = resolve_name,
    ) -> None:
        """
        Arguments:
            timeout_s: longest time of a call, from the name to the answer's status.
            networks: private networks in which receivers may be, and to which plain HTTP may go.
        """
        self._timeout_s = timeout_s
        self._networks = list(networks)
        self._resolve = resolve

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Sends the body; raises CallFailed if no answer came."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(url, body, headers)
        except TimeoutError:
            raise CallFailed(f"no answer in {self._timeout_s:g} s") from None

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            parts = split_url(url)
            default = DEFAULT_PORTS[parts.scheme]
            host, port = parts.hostname or "", parts.port or default
        except (ValueError, KeyError):
            raise CallFailed("not a URL that can be called", is_final=True) from None
        addresses = await self._find_addresses(host, port, is_plain=parts.scheme == "http")
        request = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEADER_BYTES)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        name = f"[{host}]" if ":" in host else host
        try:
            sent = request.send(
                h11.Request(
                    method="POST",
                    target=target,
                    headers=[
                        ("Host", name if port == default else f"{name}:{port}"),
                        ("Content-Type", "application/json"),
                        ("Content-Length", str(len(body))),
                        ("User-Agent", "videoqa-webhooks"),
                        ("Accept-Encoding", "identity"),
                        ("Connection", "close"),
                        *headers.items(),
                    ],
                )
            )
            sent = (sent or b"") + (request.send(h11.Data(data=body)) or b"")
            request.send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            raise CallFailed("not a URL that can be called", is_final=True) from None
        tls = _make_tls() if parts.scheme == "https" else None
        reader, writer = await _connect(addresses, port, tls, host if tls else None)
        try:
            writer.write(sent)
            return await _read_reply(reader, request)
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            raise CallFailed("the connection broke") from None
        finally:
            writer.transport.abort()

    async def _find_addresses(self, host: str, port: int, *, is_plain: bool) -> Sequence[str]:
        """Resolves and checks a name."""
        addresses = await _resolve_in_thread(self._resolve, host, port)
        if not addresses:
            raise CallFailed("the name does not resolve")
        if find_forbidden(addresses, private=self._networks) is not None:
            raise CallFailed("the URL leads to an address that is not called", is_final=True)
        if is_plain and not all(is_in_networks(one, self._networks) for one in addresses):
            raise CallFailed("plain HTTP leads out of our networks; use https", is_final=True)
        return addresses[:_MOST_ADDRESSES]


async def _resolve_in_thread(resolve: Resolve, host: str, port: int) -> Sequence[str]:
    """Resolves a name in a thread of its own: one that hangs holds up no other, and not the end of the process."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str] | None] = loop.create_future()

    def settle(result: Sequence[str] | None) -> None:
        if not found.done():
            found.set_result(result)

    def run() -> None:
        try:
            result: Sequence[str] | None = resolve(host, port)
        except (OSError, UnicodeError):
            result = None
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, name="videoqa-lookup", daemon=True).start()
    addresses = await found
    if addresses is None:
        raise CallFailed("the name does not resolve")
    return addresses


async def _connect(
    addresses: Sequence[str], port: int, tls: ssl.SSLContext | None, host: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for address in addresses:
        try:
            return await asyncio.open_connection(
                address, port, ssl=tls, server_hostname=host, limit=_MOST_HEADER_BYTES
            )
        except ssl.SSLCertVerificationError:
            raise CallFailed("its certificate is not valid") from None
        except ssl.SSLError:
            raise CallFailed("TLS failed") from None
        except (OSError, ValueError, UnicodeError):
            continue
    raise CallFailed("no connection")


async def _read_reply(reader: asyncio.StreamReader, request: h11.Connection) -> Reply:
    """Reads as far as the final status; of the body only a little, for a short time."""
    got_bytes = 0
    while True:
        try:
            event = request.next_event()
        except h11.RemoteProtocolError:
            raise CallFailed("the answer is no HTTP") from None
        if isinstance(event, h11.Response):
            with suppress(TimeoutError, OSError, h11.RemoteProtocolError):
                await asyncio.wait_for(_drain(reader, request), _DRAIN_S)
            waits = [value for name, value in event.headers if name == b"retry-after"]
            return Reply(
                event.status_code,
                parse_retry_after(waits[0].decode("latin-1")) if waits else None,
            )
        if isinstance(event, h11.InformationalResponse):
            continue
        data = await reader.read(8192)
        got_bytes += len(data)
        if got_bytes > _MOST_HEADER_BYTES:
            raise CallFailed("the answer's header is too long")
        if not data and not got_bytes:
            raise CallFailed("the connection was closed without an answer")
        request.receive_data(data)


async def _drain(reader: asyncio.StreamReader, request: h11.Connection) -> None:
    got_bytes = 0
    while got_bytes < _MOST_DRAINED_BYTES:
        event = request.next_event()
        if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return
        if event is h11.NEED_DATA:
            data = await reader.read(8192)
            got_bytes += len(data)
            request.receive_data(data)


def parse_retry_after(text: str) -> float | None:
    """Returns the time that the header `Retry-After` asks for, at most a day; None if it cannot be read."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _MOST_WAIT_S)
    if len(text) > 50:
        return None
    try:
        at = parsedate_to_datetime(text)
        wait_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), _MOST_WAIT_S)
