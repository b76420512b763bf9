"""The connection to Redis: its time-outs, and the translation of its errors into ours.

Knows nothing of jobs. Every module that talks to Redis does so inside `translate_redis_errors`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from videoqa.errors import ConfigurationError, RedisUnavailable
from videoqa.jobs.sentinels import NoPrimaryError, PrimaryFinder
from videoqa.jobs.server_checks import (
    DemotedError,
    WrongServerError,
    leave_demoted,
)
from videoqa.local_stack import (
    advise_unreachable,
    describe_address,
    name_setting,
    server_address,
)
from videoqa.redaction import redact_text, redact_url
from videoqa.redis_url import names_server, parse_options, parse_sentinels, strip_options
from videoqa.settings import Settings, check_server_url

__all__ = [
    "ENCODING_ERRORS",
    "MAX_CONNECTIONS",
    "connect",
    "connect_replica",
    "describe_refusal",
    "execute_each",
    "explain_broken",
    "find_eviction_policy",
    "is_permission_error",
    "make_finder",
    "make_retry",
    "server_address",
    "server_name",
    "translate_redis_errors",
]

_BACKOFF = ExponentialBackoff(cap=0.2, base=0.05)
_BROKEN = (redis.exceptions.ConnectionError,)
_NOT_NOW_CODES = ("MISCONF", "NOREPLICAS", "BUSY")
"""Error codes without a class in redis-py. BUSY: a script runs long."""
MAX_CONNECTIONS = 2**31 - 1
"""Most connections of a pool, unless the URL has `max_connections`: in effect no limit of ours. redis-py's
is 100, and each thread in the middle of a call holds one.
"""
ENCODING_ERRORS = "backslashreplace"
"""Treatment of bytes that are no UTF-8, and of text that has none: it breaks one record, not the read of many."""
_AFTER_FAILOVER = "try again after the failover, or set {setting} to the primary"
_BROKEN_KINDS: tuple[tuple[type[BaseException], str, str, str], ...] = (
    (
        redis.exceptions.AuthenticationError, "",
        "refused the login", "check the password in {setting}",
    ),
    (
        NoPrimaryError, "",
        "has no primary that its Sentinels see", "try again after the failover",
    ),
    (WrongServerError, "", "cannot hold messages", "correct the URL"),
    (DemotedError, "MASTER is down", "lost its primary", _AFTER_FAILOVER),
    (DemotedError, "", "is a replica", _AFTER_FAILOVER),
    (redis.exceptions.BusyLoadingError, "", "is loading its data", "try again later"),
    (
        redis.exceptions.MaxConnectionsError, "",
        "gets no more connections of this client",
        "raise max_connections in {setting}, or wait for fewer jobs at a time",
    ),
    (
        redis.exceptions.ConnectionError, "max number of clients",
        "takes no more clients", "close some, or raise its maxclients",
    ),
    (
        redis.exceptions.ConnectionError, rf"^Error ({errno.EMFILE}|{errno.ENFILE}) ",
        "gets no more connections of this process, which has too many open files",
        "raise its limit (ulimit -n), or wait for fewer jobs at a time",
    ),
)  # fmt: skip
"""Errors of a broken connection: class, pattern of its text, what happened, and the next step;
`{setting}` is the name of what holds the URL, and no next step depends on it."""


def make_retry() -> Retry:
    """Returns the rule by which a connection that broke is tried once more."""
    return Retry(_BACKOFF, 1, supported_errors=_BROKEN)


def connect_replica(settings: Settings) -> redis.Redis | None:
    """Makes the client of `redis_read_url`; None where it is not set."""
    if settings.redis_read_url is None:
        return None
    there = settings.model_copy(update={"redis_url": settings.redis_read_url})
    return connect(there, wants_replica=True)


def connect(settings: Settings, *, wants_replica: bool = False) -> redis.Redis:
    """Makes a pooled client, which connects on first use and reports a dead Redis in time.

    A connection that breaks is tried once more, quickly. One that stays silent is not:
    redis-py retries while connecting and again around it, so that a server that accepts
    and never answers would be reported after 4 x `socket_timeout_s` (measured: 20 s).

    Arguments:
        wants_replica: where the URL names Sentinels, connect to a replica.
    """
    with _translate_url_errors(settings):
        client = redis.Redis.from_url(
            strip_options(settings.redis_url), retry=make_retry(), **_make_options(settings)
        )
        finder = make_finder(settings)
        if finder is not None:
            finder.wants_replica = wants_replica
        leave_demoted(client.connection_pool, finder)
        return client


def make_finder(settings: Settings) -> PrimaryFinder | None:
    """Makes what asks the URL's Sentinels for the primary; None if the URL names none."""
    group = parse_sentinels(settings.redis_url)
    return (
        PrimaryFinder(group, _make_options(settings), uses_tls=_uses_tls(settings))
        if group
        else None
    )


def _uses_tls(settings: Settings) -> bool:
    return settings.redis_url.startswith("rediss")


def _make_options(settings: Settings) -> dict[str, Any]:
    found = {
        "decode_responses": True,
        "encoding_errors": ENCODING_ERRORS,
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.socket_timeout_s,
        "health_check_interval": 15,
        "max_connections": MAX_CONNECTIONS,
    }
    if not settings.redis_url.startswith("unix://"):  # the kernel knows when that one breaks
        found["socket_keepalive"] = True
    return found | parse_options(settings.redis_url)


@contextmanager
def _translate_url_errors(settings: Settings) -> Iterator[None]:
    if settings.redis_url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"got {server_address(settings.redis_url)} over HTTP, expected redis://; there is no HTTP gateway yet",
            param="redis_url",
        )
    try:
        check_server_url(settings.redis_url)  # a URL that code hands in has not been checked yet
        if not names_server(settings.redis_url):
            raise ConfigurationError(
                f"{name_setting(settings.redis_url)}: got {redact_url(settings.redis_url)!r:.100}, expected "
                "redis://HOST:PORT/0, rediss:// with TLS, redis+sentinel://HOST,HOST/NAME/0, or unix:///PATH",
                param="redis_url",
            )
        yield
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{name_setting(settings.redis_url)}, for {server_address(settings.redis_url)}: "
            f"{redact_text(str(error))}",
            param="redis_url",
        ) from error


def server_name(info: Mapping[str, Any]) -> str:
    """Returns `Valkey 9.1.2` or `Redis 8.2.0`, from the reply of INFO."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version') or info.get('redis_version')}"


def is_permission_error(error: BaseException) -> bool:
    """Returns True if the server's ACL refused a command or a key, also within a script."""
    in_script = "ACL failure in script", "The user executing the script"  # of Redis 7 and 6
    return isinstance(error, redis.exceptions.NoPermissionError) or any(
        text in str(error) for text in in_script
    )


def describe_refusal(refusal: str, url: str) -> str:
    """Describes what the server's ACL refused, with the next step."""
    return (
        f"{describe_address(url)} does not allow this user of the URL: {refusal}; give it the commands "
        "and keys of deploy/users.conf (see docs/guide/deploy.md)"
    )


def find_eviction_policy(client: redis.Redis) -> str | None:
    """Returns the server's `maxmemory-policy`; None where it does not tell."""
    try:
        policy = client.info("memory").get("maxmemory_policy")
    except redis.exceptions.NoPermissionError:
        return None
    return str(policy) if policy else None


def explain_broken(error: BaseException) -> tuple[str, str]:
    """Returns what became of a connection, and the next step."""
    for kind, pattern, why, next_step in _BROKEN_KINDS:
        if isinstance(error, kind) and re.search(pattern, str(error)):
            return why, next_step
    return "does not answer", ""


def execute_each(pipe: Any) -> list[Any]:
    """Runs a pipeline; where a key holds another type than expected, that error is its reply."""
    replies = cast("list[Any]", pipe.execute(raise_on_error=False))
    for reply in replies:
        if isinstance(reply, Exception) and "WRONGTYPE" not in str(reply):
            raise reply
    return replies


@contextmanager
def translate_redis_errors(url: str) -> Iterator[None]:
    """Turns redis-py's errors into RedisUnavailable or ConfigurationError, with the next step."""
    try:
        yield
    except WrongServerError as error:
        raise ConfigurationError(
            f"{describe_address(url)} cannot hold jobs: {error}", param="redis_url"
        ) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        why, next_step = explain_broken(error)
        advice = next_step.format(setting=name_setting(url)) or advise_unreachable(url)
        raise RedisUnavailable(
            f"{describe_address(url)} {why} ({redact_text(str(error))}); {advice}"
        ) from error
    except redis.exceptions.OutOfMemoryError as error:
        raise RedisUnavailable(
            f"{describe_address(url)} is full ({error}); nothing was recorded, try again later "
            "or raise its maxmemory"
        ) from error
    except redis.exceptions.ResponseError as error:
        if is_permission_error(error):
            raise RedisUnavailable(describe_refusal(str(error), url)) from error
        if any(code in str(error) for code in _NOT_NOW_CODES):
            raise RedisUnavailable(
                f"{describe_address(url)} can't take this now: {error}; try again later"
            ) from error
        if "DB index is out of range" in str(error):
            raise ConfigurationError(
                f"{describe_address(url)} has no database of that number ({error}); "
                f"change the number at the end of {name_setting(url)}",
                param="redis_url",
            ) from error
        if "WRONGTYPE" in str(error):
            raise ConfigurationError(
                f"Redis at {server_address(url)} holds another type of value under one of our keys ({error}): "
                "another program writes under the prefix; set another VIDEOQA_PREFIX, or delete its keys",
                param="prefix",
            ) from error
        raise
