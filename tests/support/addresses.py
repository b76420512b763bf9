"""Hosts by which a stranger's URL would lead into our network; inputs and webhooks refuse the same ones."""

__all__ = ["FORBIDDEN_HOSTS", "PRIVATE_HOSTS"]

PRIVATE_HOSTS = (
    "127.0.0.1", "localhost", "[::1]", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]",
    "10.0.0.1", "192.168.0.1",
)  # fmt: skip
"""Loopback and private addresses in all spellings, which a setting may allow."""
FORBIDDEN_HOSTS = (
    "169.254.169.254", "0.0.0.0", "[fe80::1]", "[64:ff9b::a9fe:a9fe]", "224.0.0.1", "[::ffff:169.254.169.254]",
    "2852039166", "100.100.100.200", "[fd00:ec2::254]",
)  # fmt: skip
"""Link-local, metadata and other special addresses, which no setting allows."""
