"""The table of network addresses by which a URL that a stranger chose is checked before it is dialled.

Workers fetch inputs and gateways call webhooks from inside our network. Therefore a host name is resolved once, each of
its addresses is checked against this table, and the connection goes to a checked address: a second answer of the
name server changes nothing (DNS rebinding).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

__all__ = [
    "LOOPBACK_NAMES",
    "Network",
    "Resolve",
    "classify_address",
    "find_forbidden",
    "is_in_networks",
    "parse_networks",
    "resolve_name",
]

Resolve = Callable[[str, int], Sequence[str]]
"""Resolves a host name and port to addresses; raises OSError."""
Kind = Literal["public", "private", "never"]
Network = IPv4Network | IPv6Network
LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")
"""Hosts that are this machine for whoever calls them."""

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


def classify_address(address: str) -> Kind:
    """Returns "public", "private" (a setting may allow it) or "never"."""
    parsed = _parse_address(address)
    if parsed is None:
        return "never"
    if any(parsed in network for network in _NEVER):
        return "never"
    if any(parsed in network for network in _PRIVATE):
        return "private"
    outside = isinstance(parsed, IPv6Address) and parsed not in _GLOBAL_UNICAST
    return "never" if outside else "public"


def _parse_address(address: str) -> IPv4Address | IPv6Address | None:
    """Returns the address, an IPv4 one if it stands in IPv6; None if it is none, or has a scope."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        return None if parsed.scope_id is not None else parsed.ipv4_mapped or parsed
    return parsed


def find_forbidden(
    addresses: Sequence[str], *, private: bool | Sequence[Network]
) -> Literal["private", "never"] | None:
    """Returns why a name with these addresses may not be dialled; one forbidden address among several forbids it.

    Arguments:
        private: True if private addresses are allowed, or the networks of those that are.
    """
    kinds = {address: classify_address(address) for address in addresses}
    if "never" in kinds.values():
        return "never"
    if private is True:
        return None
    inner = [address for address, kind in kinds.items() if kind == "private"]
    allowed = [] if private is False else private
    return None if all(is_in_networks(address, allowed) for address in inner) else "private"


def is_in_networks(address: str, networks: Sequence[Network]) -> bool:
    """Tells if an address belongs to one of the networks."""
    parsed = _parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def parse_networks(text: str) -> list[Network]:
    """Parses networks and addresses that are separated by commas; raises ValueError."""
    return [ip_network(one.strip()) for one in text.split(",") if one.strip()]


def resolve_name(host: str, port: int) -> Sequence[str]:
    """Resolves a host name by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
