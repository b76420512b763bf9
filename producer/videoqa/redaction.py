"""Redaction: URLs as messages, results and logs may show them, without what opens a door.

A user, a password, a query (signatures, tokens) and a fragment are taken out. Where a password that is
not quoted makes it unclear which part is which, nothing but the scheme is left.
"""

from __future__ import annotations

import re

__all__ = ["redact_text", "redact_url"]

_HIDDEN = "***"
_END = re.compile(r"[?#]")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(.*))?", re.DOTALL)
_NEXT_BROKER = re.compile(r";(?=[\w+.-]{1,32}://)")
_WORD = re.compile(r"[^\s'\"<>]+")


def redact_url(url: str) -> str:
    """Returns the URL without user, password, query and fragment; any text may be given for one."""
    return ";".join(_redact_one(one) for one in _NEXT_BROKER.split(url))


def _redact_one(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        return _redact_nameless(url)
    shown = _END.split(rest, maxsplit=1)[0]
    authority, slash, path = shown.partition("/")
    host = authority.rpartition("@")[2]
    # `redis://:pa/ss@host` and `redis://:pa?ss@host` have the beginning of a password for a port.
    hosts = host.split(",") if scheme.lower().endswith("+sentinel") else [host]
    is_clear = all(_has_clear_port(one) for one in hosts)
    if ":" in host and "@" not in authority and "@" in rest:
        is_clear = is_clear and bool(slash) and scheme.lower() in ("http", "https")
    return (
        f"{scheme.lower()}://{host}{slash}{path}" if is_clear else f"{scheme.lower()}://{_HIDDEN}"
    )


def _has_clear_port(host: str) -> bool:
    port = _HOST.fullmatch(host)
    return port is not None and (not port[1] or port[1].isdigit())


def _redact_nameless(text: str) -> str:
    """Redacts what may be a URL without its scheme: `me:secret@host/path?token`."""
    before, _, after = text.rpartition("@")
    return _HIDDEN if _END.search(before) else _END.split(after, maxsplit=1)[0]


def redact_text(text: str) -> str:
    """Redacts the URLs in a text, such as a library's error message."""

    def redact(found: re.Match[str]) -> str:
        word = found[0]
        is_url = "://" in word or "@" in word.strip("@") or "=" in word.partition("?")[2]
        return redact_url(word) if is_url else word

    return _WORD.sub(redact, text)
