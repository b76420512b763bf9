"""Sentinels: they know which server of a group is the primary, and are asked before each connection to it.

redis-py's own pools for Sentinels leave the primary's other connections where they are after a failover, and say of
a wrong name that there is no primary; kombu's take no password of the Sentinels from a URL. Here one finder serves
the connections of both; `server_checks.py` has the connections that ask it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from videoqa.redis_url import SentinelGroup

__all__ = [
    "NoPrimaryError",
    "PrimaryFinder",
    "SentinelReply",
    "WrongServerError",
]

Address = tuple[str, int]

_FRESH_S = 0.1
"""Age up to which threads that connect at the same time share one reply."""
LOOK_EVERY_S = 1.0
"""Time between two looks for a failover that left the old primary alive, and its connections open."""
_AWAY_S = 5.0
"""Time for which Sentinels that do not answer are not asked again, as long as connections are open."""


class NoPrimaryError(redis.exceptions.ConnectionError):
    """The Sentinels know of no primary that is up."""


class WrongServerError(redis.exceptions.ConnectionError):
    """The server is a Sentinel, a node of a Cluster, or no Redis."""


class SentinelReply(NamedTuple):
    """Reply of one Sentinel: the primary's address, or the reason why there is none."""

    sentinel: Address
    primary: Address | None = None
    error: redis.exceptions.RedisError | None = None
    """None beside no address: the primary is down."""

    @property
    def why(self) -> str:
        """The reason why there is no address."""
        host, port = self.sentinel
        return f"{host}:{port}: {self.error or 'the primary is down'}"


def _parse_reply(sentinel: Address, state: Mapping[str, Any]) -> SentinelReply:
    if state["is_sdown"] or state["is_odown"] or not state["is_master"]:
        return SentinelReply(sentinel)
    return SentinelReply(sentinel, (str(state["ip"]), int(state["port"])))


def _choose_replica(replicas: Sequence[Mapping[str, Any]]) -> Address | None:
    """Returns the address of a replica that is up and follows its primary; connections spread over all of them."""
    sound = [
        (str(each["ip"]), int(each["port"]))
        for each in replicas
        if not (each["is_sdown"] or each["is_odown"] or each["is_disconnected"])
        and each.get("master-link-status") == "ok"
    ]
    return random.choice(sound) if sound else None  # noqa: S311 - spreads load


def _raise_reason(name: str, replies: list[SentinelReply]) -> NoReturn:
    """Raises the reason why no Sentinel named a primary."""
    said = "; ".join(reply.why for reply in replies)
    if any(reply.error is None for reply in replies):
        raise NoPrimaryError(said)
    for reply in replies:
        if "No such master" in str(reply.error):
            raise WrongServerError(
                f"its Sentinels watch no primary of the name {name!r}; use the name in their `sentinel monitor`"
            )
        if "unknown command" in str(reply.error):
            host, port = reply.sentinel
            raise WrongServerError(
                f"{host}:{port} is no Sentinel; use the hosts and the port of the Sentinels, or redis://HOST:PORT/0"
            )
        if isinstance(reply.error, redis.exceptions.AuthenticationError):
            raise redis.exceptions.AuthenticationError(
                f"of a Sentinel, whose password is the option sentinel_password: {said}"
            )
    raise redis.exceptions.ConnectionError(f"no Sentinel answers: {said}")


class PrimaryFinder:
    """Asks Sentinels for the primary's address, first the one that answered last. Thread-safe."""

    wants_replica = False
    """Looks for a replica, and for the primary only where there is none in step."""

    def __init__(self, group: SentinelGroup, options: Mapping[str, Any], *, uses_tls: bool) -> None:
        """
        Arguments:
            options: those of the connections to the primary, of which time-outs and TLS are taken.
        """
        self.name = group.name
        self._sentinels = list(group.addresses)
        self._options: dict[str, Any] = {
            name: value for name, value in options.items() if name.startswith("ssl_")
        } | {
            "ssl": uses_tls,
            "username": group.username,
            "password": group.password,
            # One that hangs is passed over soon: the others know the same.
            "socket_timeout": options["socket_connect_timeout"],
            "socket_connect_timeout": options["socket_connect_timeout"],
            "decode_responses": True,
        }
        self._lock = threading.Lock()
        self._clients: dict[Address, redis.Redis] = {}
        self._found: Address | None = None
        self._found_s = float("-inf")
        self._look_at_s = float("-inf")

    def find(self) -> Address:
        """Returns host and port of the primary.

        Raises:
            NoPrimaryError: the primary is down, and no other one is elected yet.
            WrongServerError: the Sentinels watch no primary of this name, or are none.
            redis.exceptions.ConnectionError: no Sentinel answers.
        """
        with self._lock:
            if self._found is None or time.monotonic() - self._found_s > _FRESH_S:
                self._search_now()
            return cast("Address", self._found)

    def look(self) -> Address | None:
        """Returns the primary's address once a second, and None in between, or if nobody knows it."""
        if time.monotonic() < self._look_at_s or not self._lock.acquire(blocking=False):
            return None
        try:
            self._search_now()
        except NoPrimaryError:
            return None
        except redis.exceptions.RedisError:
            self._look_at_s = time.monotonic() + _AWAY_S
            return None
        finally:
            self._lock.release()
        return self._found

    def _search_now(self) -> None:
        self._found = None
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        self._found = self._search()
        self._found_s = time.monotonic()

    def _search(self) -> Address:
        replies: list[SentinelReply] = []
        for sentinel in self._sentinels:
            replies.append(self._ask(sentinel))
            if (primary := replies[-1].primary) is not None:
                others = (each for each in self._sentinels if each != sentinel)
                self._sentinels = [sentinel, *others]
                return primary
        _raise_reason(self.name, replies)

    def ask_all(self) -> list[SentinelReply]:
        """Asks every Sentinel, for `doctor`."""
        return [self._ask(sentinel) for sentinel in self._sentinels]

    def _ask(self, sentinel: Address) -> SentinelReply:
        client = self._clients.get(sentinel)
        if client is None:
            host, port = sentinel
            client = redis.Redis(host, port, retry=Retry(NoBackoff(), 0), **self._options)
            self._clients[sentinel] = client
        try:
            state = client.execute_command("SENTINEL MASTER", self.name)  # type: ignore[no-untyped-call]
            found = _parse_reply(sentinel, state)
            if self.wants_replica:
                replicas = client.execute_command("SENTINEL SLAVES", self.name)  # type: ignore[no-untyped-call]
                return found._replace(primary=_choose_replica(replicas) or found.primary)
            return found
        except redis.exceptions.RedisError as error:
            return SentinelReply(sentinel, error=error)
