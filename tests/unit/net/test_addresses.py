"""Addresses are public, private (a setting allows them), or never fetched from."""

from __future__ import annotations

import pytest

from videoqa.net import classify_address, find_forbidden, parse_networks


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1",
     "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"],
)  # fmt: skip
def test_public(address: str) -> None:
    assert classify_address(address) == "public"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
     "100.64.0.1", "100.100.100.201", "::1", "fc00::1", "fd12:3456::1", "fd00::254", "fd20:ce::255", "::ffff:127.0.0.1",
     "::ffff:10.0.0.1"],
)  # fmt: skip
def test_private(address: str) -> None:
    assert classify_address(address) == "private"


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "169.254.169.254", "192.0.0.192", "192.0.2.1", "198.18.0.1",
     "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1",
     "255.255.255.255", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
     "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1", "2001:db8::1",
     "3fff::1", "100::1", "5f00::1", "::127.0.0.1", "::ffff:169.254.169.254",
     "::ffff:0:127.0.0.1", "100.100.100.200", "::ffff:100.100.100.200", "fd00:ec2::254",
     "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd00:a9fe:a9fe::1",
     "fd00:100::100:200", "168.63.129.16", "not an address", ""],
)  # fmt: skip
def test_never(address: str) -> None:
    assert classify_address(address) == "never"


@pytest.mark.parametrize(
    ("addresses", "private", "found"),
    [
        (["1.1.1.1"], False, None),
        (["1.1.1.1", "10.0.0.1"], False, "private"),
        (["1.1.1.1", "10.0.0.1"], True, None),
        (["10.0.0.1"], "10.0.0.0/8", None),
        (["10.0.0.1"], "10.0.0.1", None),
        (["10.0.0.1", "192.168.0.1"], "10.0.0.0/8", "private"),
        (["::ffff:10.0.0.1"], "10.0.0.0/8, fd00::/8", None),
        (["fd00::1"], "10.0.0.0/8, fd00::/8", None),
        (["1.1.1.1", "169.254.169.254"], True, "never"),
        (["169.254.169.254"], "169.254.0.0/16", "never"),
    ],
)
def test_one_forbidden_address_forbids_all(
    addresses: list[str], private: bool | str, found: str | None
) -> None:
    allowed = parse_networks(private) if isinstance(private, str) else private
    assert find_forbidden(addresses, private=allowed) == found
