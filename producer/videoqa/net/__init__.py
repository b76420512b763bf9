"""Networks: the checks of addresses that workers and gateways share. `h11_patterns` is apart, since it needs h11."""

from videoqa.net.addresses import (
    LOOPBACK_NAMES,
    Network,
    Resolve,
    classify_address,
    find_forbidden,
    is_in_networks,
    parse_networks,
    resolve_name,
)

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
