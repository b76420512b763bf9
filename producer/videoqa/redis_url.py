"""The URL of a Redis: its options, checked, and its spelling for redis-py and for Celery.

redis-py and kombu know different options, spell some differently, and find a mistake at the first connection
or never. Therefore the options are read here and handed to both as the arguments of a connection; the URLs
that they get have none.

A URL with `+sentinel` in its scheme names Sentinels and the primary that they watch; `parse_sentinels` takes it
apart, and the rest of it is that of any Redis.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from videoqa.suggestions import suggest

__all__ = [
    "SentinelGroup",
    "names_server",
    "parse_database",
    "parse_options",
    "parse_sentinels",
    "speaks_redis",
    "spell_for_celery",
    "strip_options",
]

SHORTEST_TIMEOUT_S = 2.0
"""Blocking reads take as long; see `BLOCK_S` of the event cursor."""


def _parse_bool(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        text.lower()
    ]


def _parse_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError
        return int(text)

    return parse


def _parse_seconds(above: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not above < float(text) < 1e6:
            raise ValueError
        return float(text)

    return parse


def _parse_file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError
    return text


def _parse_folder(text: str) -> str:
    if not Path(text).is_dir():
        raise ValueError
    return text


def _parse_text(text: str) -> str:
    if not text or not text.isprintable() or " " in text:
        raise ValueError
    return text


class _Option(NamedTuple):
    parse: Callable[[str], Any]
    """Raises ValueError or KeyError for a wrong value."""
    expected: str


_OPTIONS = {
    "db": _Option(_parse_number(0), "a number"),
    "socket_timeout": _Option(
        _parse_seconds(SHORTEST_TIMEOUT_S), f"seconds, more than {SHORTEST_TIMEOUT_S:g}"
    ),
    "socket_connect_timeout": _Option(_parse_seconds(0), "seconds"),
    "socket_keepalive": _Option(_parse_bool, "true or false"),
    "health_check_interval": _Option(_parse_number(0), "whole seconds, or 0 for none"),
    "max_connections": _Option(_parse_number(1), "a number from 1 on"),
    "protocol": _Option({"2": 2, "3": 3}.__getitem__, "2 or 3"),
    "client_name": _Option(_parse_text, "a name without spaces"),
    "ssl_cert_reqs": _Option(
        # `CERT_REQUIRED` is Celery's spelling, `required` redis-py's.
        lambda text: ssl.VerifyMode[f"CERT_{text.removeprefix('CERT_').upper()}"],
        "required, optional or none",
    ),
    "ssl_check_hostname": _Option(_parse_bool, "true or false"),
    "ssl_ca_certs": _Option(_parse_file, "a readable file of certificates"),
    "ssl_ca_path": _Option(_parse_folder, "a folder of certificates"),
    "ssl_certfile": _Option(_parse_file, "a readable file"),
    "ssl_keyfile": _Option(_parse_file, "a readable file"),
    "ssl_password": _Option(_parse_text, "the password of the key"),
    "ssl_ciphers": _Option(_parse_text, "OpenSSL's names of ciphers"),
    "ssl_min_version": _Option(
        lambda text: ssl.TLSVersion[f"TLSv1_{text.removeprefix('TLSv1.')}"], "TLSv1.2 or TLSv1.3"
    ),
}
_SENTINEL_OPTIONS = {
    "sentinel_username": _Option(_parse_text, "the user of the Sentinels"),
    "sentinel_password": _Option(_parse_text, "the password of the Sentinels"),
}
_BEFORE_THE_HOST = ("username", "password")
_WITH_SENTINELS = ("redis+sentinel://", "rediss+sentinel://")
_SENTINEL_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?P<login>[^/?#]*@)?(?P<hosts>[^/?#]*)"
    r"(?:/(?P<name>[^/?#]*)(?:/(?P<database>[^?#]*))?)?(?P<rest>.*)",
    re.DOTALL,
)
_SENTINEL_PORT = 26379
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:,\s]+)(?::([0-9]{1,5}))?")


class SentinelGroup(NamedTuple):
    """Sentinels, and the primary that they watch."""

    addresses: tuple[tuple[str, int], ...]
    name: str
    """Name of the primary in the Sentinels' configuration."""
    username: str | None = None
    password: str | None = None


def speaks_redis(url: str) -> bool:
    """Returns True for the URLs of a Redis that both libraries are to understand."""
    return url.startswith(("redis://", "rediss://", "unix://", *_WITH_SENTINELS))


def parse_sentinels(url: str) -> SentinelGroup | None:
    """Returns the Sentinels of a `redis+sentinel://` or `rediss+sentinel://` URL; None for any other URL.

    Raises:
        ValueError: a host or the primary's name is missing, or a port is not a number; the message has no secret.
    """
    match = _SENTINEL_URL.match(url)
    if match is None:
        return None
    found = [_ADDRESS.fullmatch(address) for address in match["hosts"].split(",")]
    addresses = tuple(
        (each[1].strip("[]"), int(each[2] or _SENTINEL_PORT)) for each in found if each
    )
    if len(addresses) < len(found) or any(not 0 < port < 65_536 for _, port in addresses):
        raise ValueError(
            "expected HOST or HOST:PORT of each Sentinel, with commas between them; in a password write / as %2F, "
            "# as %23, ? as %3F and @ as %40"
        )
    if not match["name"]:
        raise ValueError("expected /NAME after the Sentinels: that of the primary which they watch")
    options = dict(parse_qsl(match["rest"].partition("?")[2], keep_blank_values=True))
    login = (options.get(f"sentinel_{part}") for part in ("username", "password"))
    return SentinelGroup(addresses, unquote(match["name"]), *login)


def _name_one_host(url: str) -> str:
    """Returns a URL of Sentinels in the form of a single server's, that of the first; another one as it is."""
    group, match = parse_sentinels(url), _SENTINEL_URL.match(url)
    if group is None or match is None:
        return url
    host, port = group.addresses[0]
    shown = f"[{host}]" if ":" in host else host
    return f"{match['scheme']}://{match['login'] or ''}{shown}:{port}/{match['database'] or ''}{match['rest']}"


def names_server(url: str) -> bool:
    """Returns True for a URL of those, if it has a host, or the path of a socket."""
    if match := _SENTINEL_URL.match(url):
        return bool(match["hosts"] and match["name"])
    has_path = re.match(r"unix://([^@]*@)?/[^?#]", url) is not None
    lacks_host = re.match(r"rediss?://([^@]*@)?([/?#]|$)", url) is not None
    return has_path or (url.startswith(("redis://", "rediss://")) and not lacks_host)


def parse_options(url: str) -> dict[str, Any]:
    """Returns the options of a Redis URL as arguments of redis-py's connections, with the database as `db`.

    Raises:
        ValueError: an option is unknown, or has a wrong value; the message has no secret.
    """
    scheme = url.partition("://")[0]
    has_sentinels = parse_sentinels(url) is not None
    parts = urlsplit(_name_one_host(url))
    if "@" in parts.query + parts.fragment:  # the rest of a password, as in `redis://:12?3@host`
        raise ValueError(
            "got an @ after the ?; in a password write ? as %3F, # as %23 and @ as %40"
        )
    found: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name in found:
            raise ValueError(f"option {name} is there twice")
        value = _parse_option(name, text, scheme)
        if name in _SENTINEL_OPTIONS:
            if not has_sentinels:
                raise ValueError(
                    f"option {name} is of Sentinels; write redis+sentinel://HOST,HOST/NAME/0"
                )
            continue
        found[name] = value
    if parts.scheme != "unix" and "db" not in found:
        found["db"] = parse_database(parts.path)
    elif parts.scheme != "unix" and parts.path not in ("", "/", f"/{found['db']}"):
        raise ValueError("a database is named both after the / and as db")
    return found


def parse_database(path: str) -> int:
    """Returns the number of the database; raises ValueError for a name."""
    database = unquote(path).strip("/")
    if database and not database.isdecimal():
        raise ValueError(  # without the name itself: it may be the rest of a password
            "expected a number for the database, after the / or as db; in a password write / as %2F and @ as %40"
        )
    return int(database or 0)


def _parse_option(name: str, text: str, scheme: str) -> Any:
    if name in _BEFORE_THE_HOST:
        raise ValueError(f"option {name} belongs before the host: {scheme}://USER:PASSWORD@HOST")
    known = _OPTIONS | _SENTINEL_OPTIONS if "+" in scheme or name in _SENTINEL_OPTIONS else _OPTIONS
    option = known.get(name)
    if option is None:
        raise ValueError(f"option {name!r} is unknown; {suggest(name, known)}")
    if name.startswith("ssl_") and not scheme.startswith("rediss"):
        secure = scheme.replace("redis", "rediss") if "redis" in scheme else "rediss"
        raise ValueError(f"option {name} is of TLS; write {secure}:// in place of {scheme}://")
    if name.startswith("socket_keep") and scheme == "unix":
        raise ValueError(f"option {name} is of TCP, and no option of unix://")
    try:
        return option.parse(text)
    except (ValueError, KeyError):
        # Other text may be a password that stands in the wrong place.
        got = repr(text) if text in ("", "nan") or text.isdecimal() else "that"
        raise ValueError(f"got {name}={got}, expected {option.expected}") from None


def strip_options(url: str) -> str:
    """Returns the URL without its options, for redis-py; the database is one of them."""
    parts = urlsplit(_name_one_host(url))
    path = parts.path if parts.scheme == "unix" else ""
    return urlunsplit(parts._replace(path=path, query="", fragment=""))


def spell_for_celery(url: str) -> str:
    """Returns the URL without its options but for the database, as Celery spells it; of Sentinels the first."""
    parts = urlsplit(_name_one_host(url))
    database = parse_options(url).get("db", 0)
    if parts.scheme == "unix":
        return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"
    # An option of TLS has kombu use TLS; our transport replaces it by those of the URL.
    query = "ssl_cert_reqs=required" if parts.scheme == "rediss" else ""
    return urlunsplit(parts._replace(path=f"/{database}", query=query, fragment=""))
