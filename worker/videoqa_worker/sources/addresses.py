"""The guard against SSRF: connections of a worker, to addresses that `videoqa.net` has checked."""

from __future__ import annotations

import queue
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import httpcore2

from videoqa.errors import AddressForbidden, SourceTimeout, SourceUnreachable
from videoqa.net import Resolve, find_forbidden, resolve_name
from videoqa_worker.sources.ranges.account import FetchAccount

__all__ = ["GuardedBackend"]

_POLL_S = 0.5
"""Interval at which a blocked read checks that its caller still waits."""


class GuardedBackend(httpcore2.NetworkBackend):
    """A network backend of httpcore that connects to checked addresses, within the deadline.

    It belongs to one file: a name is resolved once, however many connections it takes.
    """

    def __init__(self, account: FetchAccount, resolve: Resolve = resolve_name) -> None:
        self._account = account
        self._resolve = resolve
        self._inner = httpcore2.SyncBackend()
        self._checked: dict[tuple[str, int], Sequence[str]] = {}
        self._streams: weakref.WeakSet[_WatchedStream] = weakref.WeakSet()
        self._lock = threading.Lock()

    def shut_down_connections(self) -> None:
        """Shuts down all connections, so that threads which wait for bytes wake up.

        It does not close them: another socket could get a descriptor that a thread still reads.
        """
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            plain = stream.get_extra_info("socket")
            with suppress(OSError, AttributeError):
                socket.socket.shutdown(
                    plain, socket.SHUT_RDWR
                )  # the TLS socket's own method would free its state

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = self._find_addresses(host, port)
        timeout_s = self._account.config.connect_timeout_s
        failure: Exception | None = None
        for address in addresses[:3]:
            self._account.tick()
            try:
                stream = self._inner.connect_tcp(
                    address, port, min(timeout_s, self._account.remaining_s()), None, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            return self._watch_stream(stream)
        raise failure or SourceUnreachable(f"the name {host} resolves to no address; check the URL")

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        raise AddressForbidden("got a URL that leads to a unix socket, expected a network address")

    def _watch_stream(self, inner: httpcore2.NetworkStream) -> httpcore2.NetworkStream:
        stream = _WatchedStream(inner, self._account, self._watch_stream)
        with self._lock:
            self._streams.add(stream)
        return stream

    def _find_addresses(self, host: str, port: int) -> Sequence[str]:
        """Resolves and checks a name; one forbidden address among several forbids it."""
        if (host, port) in self._checked:
            return self._checked[host, port]
        addresses = self._resolve_in_thread(host, port)
        verdict = find_forbidden(addresses, private=self._account.config.private_addresses)
        # The message leaves out the address, so that nobody maps the inner network by it.
        if verdict == "never":
            raise AddressForbidden(
                f"{host} leads to a special-purpose address (link-local, multicast, reserved, "
                "...) that workers never fetch from; use a public address"
            )
        if verdict == "private":
            raise AddressForbidden(
                f"{host} leads to a private or loopback address; if this fleet may fetch from "
                "its own network, set VIDEOQA_PRIVATE_ADDRESSES=true on the workers"
            )
        self._checked[host, port] = addresses
        return addresses

    def _resolve_in_thread(self, host: str, port: int) -> Sequence[str]:
        """Resolves a name on a thread of its own, since getaddrinfo has no timeout."""
        results: queue.Queue[Sequence[str] | Exception] = queue.Queue(1)

        def resolve() -> None:
            try:
                results.put(self._resolve(host, port))
            except (OSError, UnicodeError) as error:
                results.put(error)

        threading.Thread(target=resolve, name="videoqa-lookup", daemon=True).start()
        timeout_s = self._account.config.connect_timeout_s
        try:
            result = results.get(timeout=min(timeout_s, self._account.remaining_s()))
        except queue.Empty:
            raise SourceTimeout(
                f"the name {host} was not resolved within {timeout_s:g} s; try again"
            ) from None
        if isinstance(result, Exception):
            raise SourceUnreachable(
                f"the name {host} does not resolve; check the URL and the worker's DNS"
            ) from result
        return result


class _WatchedStream(httpcore2.NetworkStream):
    """A stream whose waits end with the fetch's deadline, or when the caller leaves."""

    def __init__(
        self,
        inner: httpcore2.NetworkStream,
        account: FetchAccount,
        watched: Callable[[httpcore2.NetworkStream], httpcore2.NetworkStream],
    ) -> None:
        self._inner = inner
        self._account = account
        self._watch_stream = watched

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        waited_s = 0.0
        limit_s = self._account.config.read_timeout_s
        while True:
            self._account.tick()
            slice_s = min(_POLL_S, limit_s, self._account.remaining_s())
            try:
                return self._inner.read(max_bytes, slice_s)
            except httpcore2.ReadTimeout:
                waited_s += slice_s
                if waited_s >= limit_s:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        limit_s = self._account.config.read_timeout_s
        self._inner.write(buffer, min(limit_s, self._account.remaining_s()))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        limit_s = min(self._account.config.connect_timeout_s, self._account.remaining_s())
        return self._watch_stream(self._inner.start_tls(ssl_context, server_hostname, limit_s))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
