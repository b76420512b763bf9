"""Which network addresses a worker may fetch from, and connections to just those.

Whoever submits a job chooses a URL that the worker, inside our network, will fetch. So a
name is looked up once, every address it has is checked against a table, and the connection
goes to the address that was checked: a second answer of the name server changes nothing.
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
from videoqa_worker.sources.ranges.transfer import Transfer

__all__ = ["GuardedBackend", "Resolve", "look_up", "verdict"]

Resolve = Callable[[str, int], Sequence[str]]
"""From a host name and port to addresses; raises OSError."""

_POLL_S = 0.5
"""How soon a blocked read hears that its caller has left."""

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
        "100.100.100.200/32",  # that of Alibaba, among private addresses
        "fd00:100::100:200/128",  # over IPv6
        "fd00:ec2::/32",  # that of AWS and its other services, which give out credentials too
        "fd20:ce::254/128",  # that of Google
        "fd00:c1::a9fe:a9fe/128",  # of Oracle
        "fd00:42::42/128",  # of Scaleway
        "fd00:a9fe:a9fe::1/128",  # of Linode
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
"""All that IANA gave out; so 64:ff9b::/96, fe80::/10, fec0::/10, ff00::/8 are outside."""


def verdict(address: str) -> str:
    """Tells a "public" address from a "private" one (a setting may allow it) and from one that is "never" allowed."""
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


def look_up(host: str, port: int) -> Sequence[str]:
    """The system's own name lookup."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore2.NetworkBackend):
    """httpcore's connections, each to a checked address and within the fetch's deadline.

    One file's: a name is looked up once, however many connections lead to it.
    """

    def __init__(self, transfer: Transfer, resolve: Resolve = look_up) -> None:
        self._transfer = transfer
        self._resolve = resolve
        self._inner = httpcore2.SyncBackend()
        self._checked: dict[tuple[str, int], Sequence[str]] = {}
        self._streams: weakref.WeakSet[_WatchedStream] = weakref.WeakSet()
        self._lock = threading.Lock()

    def hang_up(self) -> None:
        """Threads that wait for bytes wake up to the end of their connections.

        Shut down, not closed: another socket could get the number that a thread still reads.
        """
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            plain = stream.get_extra_info("socket")
            with suppress(OSError, AttributeError):
                socket.socket.shutdown(plain, socket.SHUT_RDWR)  # TLS' own would free its state

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = self._addresses(host, port)
        timeout_s = self._transfer.config.connect_timeout_s
        failure: Exception | None = None
        for address in addresses[:3]:
            self._transfer.tick()
            try:
                stream = self._inner.connect_tcp(
                    address, port, min(timeout_s, self._transfer.left_s()), None, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            return self._watched(stream)
        raise failure or SourceUnreachable(f"the name {host} has no address; check the URL")

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        raise AddressForbidden("a URL led to a unix socket, expected a network address")

    def _watched(self, inner: httpcore2.NetworkStream) -> httpcore2.NetworkStream:
        stream = _WatchedStream(inner, self._transfer, self._watched)
        with self._lock:
            self._streams.add(stream)
        return stream

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        """One forbidden address among several forbids the name."""
        if (host, port) in self._checked:
            return self._checked[host, port]
        addresses = self._resolved(host, port)
        verdicts = {verdict(address) for address in addresses}
        # The address itself is not told: names of the inner network are nobody's business.
        if "never" in verdicts:
            raise AddressForbidden(
                f"{host} leads to a special-purpose address (link-local, multicast, reserved, "
                "...) that workers never fetch from; use a public address"
            )
        if "private" in verdicts and not self._transfer.config.private_addresses:
            raise AddressForbidden(
                f"{host} leads to a private or loopback address; if this fleet may fetch from "
                "its own network, set VIDEOQA_PRIVATE_ADDRESSES=true on the workers"
            )
        self._checked[host, port] = addresses
        return addresses

    def _resolved(self, host: str, port: int) -> Sequence[str]:
        """getaddrinfo knows no timeout, so it waits on a thread that may be left behind."""
        answers: queue.Queue[Sequence[str] | Exception] = queue.Queue(1)

        def ask() -> None:
            try:
                answers.put(self._resolve(host, port))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        threading.Thread(target=ask, name="videoqa-lookup", daemon=True).start()
        timeout_s = self._transfer.config.connect_timeout_s
        try:
            answer = answers.get(timeout=min(timeout_s, self._transfer.left_s()))
        except queue.Empty:
            raise SourceTimeout(
                f"the name {host} was not resolved within {timeout_s:g} s; try again"
            ) from None
        if isinstance(answer, Exception):
            raise SourceUnreachable(
                f"the name {host} does not resolve; check the URL and the worker's DNS"
            ) from answer
        return answer


class _WatchedStream(httpcore2.NetworkStream):
    """Every wait is bounded by the whole fetch's deadline, and ends when the caller leaves."""

    def __init__(
        self,
        inner: httpcore2.NetworkStream,
        transfer: Transfer,
        watched: Callable[[httpcore2.NetworkStream], httpcore2.NetworkStream],
    ) -> None:
        self._inner = inner
        self._transfer = transfer
        self._watched = watched

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        waited_s = 0.0
        limit_s = self._transfer.config.read_timeout_s
        while True:
            self._transfer.tick()
            slice_s = min(_POLL_S, limit_s, self._transfer.left_s())
            try:
                return self._inner.read(max_bytes, slice_s)
            except httpcore2.ReadTimeout:
                waited_s += slice_s
                if waited_s >= limit_s:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        limit_s = self._transfer.config.read_timeout_s
        self._inner.write(buffer, min(limit_s, self._transfer.left_s()))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        limit_s = min(self._transfer.config.connect_timeout_s, self._transfer.left_s())
        return self._watched(self._inner.start_tls(ssl_context, server_hostname, limit_s))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
