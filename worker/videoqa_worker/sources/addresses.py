"""The guard against SSRF: checks the network addresses that a worker connects to.

A job's submitter chooses the URL that the worker, inside our network, will fetch. Therefore a
host name is resolved once, each of its addresses is checked against a table, and the connection
goes to a checked address: a second answer of the name server changes nothing (DNS rebinding).
"""

from __future__ import annotations

import queue
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore2

from videoqa.errors import AddressForbidden, SourceTimeout, SourceUnreachable
from videoqa_worker.sources.ranges.account import FetchAccount

__all__ = ["GuardedBackend", "Resolve", "classify_address", "resolve_name"]

Resolve = Callable[[str, int], Sequence[str]]
"""Resolves a host name and port to addresses; raises OSError."""

_POLL_S = 0.5
"""Interval at which a blocked read checks that its caller still waits."""

# Named here and not taken from `ipaddress.is_private`, whose tables depend on Python's patch
# level and call shared address space (100.64/10) neither private nor global.
# Sources: the IANA special-purpose registries (RFC 6890 and successors).
_PRIVATE = [
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # shared by carriers and by cloud-internal services
        "::1/128",
        "fc00::/7",
    )
]
_NEVER = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local: the metadata services of most clouds
        "100.100.100.200/32",  # metadata of Alibaba, among private addresses
        "fd00:100::100:200/128",  # metadata of Alibaba over IPv6
        "fd00:ec2::/32",  # AWS' services for instances, which give out credentials too
        "fd20:ce::254/128",  # metadata of Google
        "fd00:c1::a9fe:a9fe/128",  # metadata of Oracle
        "fd00:42::42/128",  # metadata of Scaleway
        "fd00:a9fe:a9fe::1/128",  # metadata of Linode
        "168.63.129.16/32",  # the host of a machine in Azure, as seen from there alone
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # Teredo and other tunnels, which can carry any IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4, likewise
        "3fff::/20",
    )
]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The addresses that IANA has allocated; 64:ff9b::/96, fe80::/10, fec0::/10 and ff00::/8 lie outside."""


def classify_address(address: str) -> str:
    """Returns "public", "private" (a setting may allow it) or "never"."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return "never"
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            return "never"
        parsed = parsed.ipv4_mapped or parsed
    if any(parsed in network for network in _NEVER):
        return "never"
    if any(parsed in network for network in _PRIVATE):
        return "private"
    outside = isinstance(parsed, IPv6Address) and parsed not in _GLOBAL_UNICAST
    return "never" if outside else "public"


def resolve_name(host: str, port: int) -> Sequence[str]:
    """Resolves a host name by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


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
        verdicts = {classify_address(address) for address in addresses}
        # The message leaves out the address, so that nobody maps the inner network by it.
        if "never" in verdicts:
            raise AddressForbidden(
                f"{host} leads to a special-purpose address (link-local, multicast, reserved, "
                "...) that workers never fetch from; use a public address"
            )
        if "private" in verdicts and not self._account.config.private_addresses:
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
