"""Connections that leave a server which cannot hold jobs, for redis-py and kombu.

A node of a Cluster and a Sentinel say what they are when a connection begins, and a server of another kind, such
as one of HTTP, answers something else. Later such an answer is a broken connection.

After a failover a connection to the demoted primary stays open and answers reads; only writes fail, for
ever. Here such a refusal counts as a broken connection: the caller's retry connects again, which resolves
the name again, and so does every other connection of the pool before its next use. Where Sentinels know
the primary they are asked before each connection; a new address counts as a demotion of the old one.
"""

from __future__ import annotations

import re
from typing import Any

import redis
from redis.utils import str_if_bytes

from videoqa.jobs.sentinels import PrimaryFinder, WrongServerError

__all__ = [
    "DemotedError",
    "WrongServerError",
    "leave_demoted",
    "make_leaving_class",
]

_CLASSES = (redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)
_GARBLED = "the reply is not of Redis' protocol"
_TEXT = re.compile("^UNBLOCKED|-READONLY|^WAIT cannot be used with replica")
"""Errors without a class in redis-py: a blocking read met the demotion; a script met it, in Redis 6; WAIT did."""


class DemotedError(redis.exceptions.ConnectionError):
    """The server is a replica, or became one."""


class GarbledReplyError(redis.exceptions.ConnectionError):
    """The server's bytes are not of Redis' protocol."""


_WRONG_MODES = {
    "cluster": "it is a node of a Cluster, which would spread the keys of one job over several servers; "
    "use a Redis without cluster mode",
    "sentinel": "it is a Sentinel, which holds no data; use redis+sentinel://HOST,HOST/NAME/0 with the name of the "
    "primary that it watches",
}
_NO_REDIS = "it does not speak Redis' protocol; use the host and the port of a Redis"


class _Leaving:
    """Mixed into a connection class of one pool."""

    demotions = 0
    """Times that a connection of this class found its server demoted."""
    _met = 0
    """The value of `demotions` when this connection was made."""
    finder: Any = None
    """Finder of the primary's address; None: the URL has it."""
    _primary: tuple[str, int] | None = None
    """The address that it found last for a connection of this class."""

    def _lead_to(self, primary: tuple[str, int]) -> None:
        """Makes the next connection of this object one to the primary, or to a replica that was found."""
        self._note(primary)
        self.host, self.port = primary

    def _note(self, primary: tuple[str, int]) -> None:
        """Has all connections of this class leave another server than this one."""
        if not self.finder.wants_replica and type(self)._primary not in (None, primary):
            type(self).demotions += 1
        type(self)._primary = primary

    def _check_role(self, role: str | None) -> None:
        """Raises DemotedError if the Sentinels named a server that is no primary any more, or not yet."""
        if self.finder is not None and role != "master" and not self.finder.wants_replica:
            raise DemotedError(f"{self.host}:{self.port} is not the primary yet")

    def _is_left_over(self) -> bool:
        connected: bool = self.is_connected  # type: ignore[attr-defined]
        return connected and self._met != self.demotions

    def _explain(self, error: redis.exceptions.ResponseError) -> DemotedError | None:
        if not isinstance(error, _CLASSES) and not _TEXT.search(str(error)):
            return None
        type(self).demotions += 1
        return DemotedError(str(error))


class _LeavingConnection(_Leaving):
    handshake_metadata: Any

    def connect(self) -> None:
        if self.has_moved():
            self.disconnect()  # type: ignore[attr-defined]
        super().connect()  # type: ignore[misc]

    def has_moved(self) -> bool:
        """Tells if the connection is open to a server that is known to be no primary any more.

        A failover may leave the old one alive, with its connections open, for some ten seconds: the Sentinels are
        asked once a second.
        """
        if self.finder is not None and self.is_connected and (found := self.finder.look()):  # type: ignore[attr-defined]
            self._note(found)
        return self._is_left_over()

    def connect_check_health(self, *args: Any, **options: Any) -> None:
        if self.finder is not None and not self.is_connected:  # type: ignore[attr-defined]
            self._lead_to(self.finder.find())
        super().connect_check_health(*args, **options)  # type: ignore[misc]

    def _connect(self) -> Any:
        self._met = self.demotions
        return super()._connect()  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except redis.exceptions.ResponseError as error:
            if demoted := self._explain(error):
                self.disconnect()  # type: ignore[attr-defined]
                raise demoted from error
            raise
        except redis.exceptions.InvalidResponse as error:
            self.disconnect()  # type: ignore[attr-defined]
            raise GarbledReplyError(_GARBLED) from error

    def on_connect_check_health(self, *args: Any, **options: Any) -> None:
        self.handshake_metadata = None
        try:
            super().on_connect_check_health(*args, **options)  # type: ignore[misc]
        except GarbledReplyError as error:
            raise WrongServerError(_NO_REDIS) from error
        except redis.exceptions.ResponseError:
            self._check_mode()  # the reason of what a Sentinel does not know and a Cluster does not allow
            raise
        self._check_mode()

    def _check_mode(self) -> None:
        """Raises WrongServerError by the reply to HELLO."""
        reply = self.handshake_metadata or self._say_hello()
        said = {str_if_bytes(name): str_if_bytes(value) for name, value in reply.items()}
        if why := _WRONG_MODES.get(said.get("mode", "")):
            raise WrongServerError(why)
        self._check_role(said.get("role"))

    def _say_hello(self) -> dict[Any, Any]:
        """Asks for what redis-py asks only with RESP3."""
        self.send_command("HELLO", 2, check_health=False)  # type: ignore[attr-defined]
        flat = self.read_response()
        return dict(zip(flat[::2], flat[1::2], strict=True))


def make_leaving_class(base: type, finder: PrimaryFinder | None = None) -> type:
    """Derives the class for the connections of one pool; they share its count of demotions."""
    return type(base.__name__, (_LeavingConnection, base), {"finder": finder})


def leave_demoted(pool: redis.ConnectionPool, finder: PrimaryFinder | None = None) -> None:
    """Makes the connections of a new pool leave a server that is no longer the primary."""
    pool.connection_class = make_leaving_class(pool.connection_class, finder)
