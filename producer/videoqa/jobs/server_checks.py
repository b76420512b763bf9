"""Connections that leave a server which cannot hold jobs, for redis-py and kombu.

A node of a Cluster and a Sentinel say what they are when a connection begins, and a server of another kind, such
as one of HTTP, answers something else. Later such an answer is a broken connection.

After a failover a connection to the demoted primary stays open and answers reads; only writes fail, for
ever. Here such a refusal counts as a broken connection: the caller's retry connects again, which resolves
the name again, and so does every other connection of the pool before its next use.
"""

from __future__ import annotations

import re
from typing import Any

import redis
from redis.utils import str_if_bytes

__all__ = [
    "DemotedError",
    "WrongServerError",
    "leave_demoted",
    "make_leaving_class",
]

_CLASSES = (redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)
_GARBLED = "the reply is not of Redis' protocol"
_TEXT = re.compile("^UNBLOCKED|-READONLY")
"""Codes without a class in redis-py: a blocking read met the demotion; a script met it, in Redis 6."""


class DemotedError(redis.exceptions.ConnectionError):
    """The server is a replica, or became one."""


class WrongServerError(redis.exceptions.ConnectionError):
    """The server is a Sentinel, a node of a Cluster, or no Redis."""


class GarbledReplyError(redis.exceptions.ConnectionError):
    """The server's bytes are not of Redis' protocol."""


_WRONG_MODES = {
    "cluster": "it is a node of a Cluster, which would spread the keys of one job over several servers; "
    "use a Redis without cluster mode",
    "sentinel": "it is a Sentinel, which holds no data; use the address of the primary that it watches",
}
_NO_REDIS = "it does not speak Redis' protocol; use the host and the port of a Redis"


class _Leaving:
    """Mixed into a connection class of one pool."""

    demotions = 0
    """Times that a connection of this class found its server demoted."""
    _met = 0
    """The value of `demotions` when this connection was made."""

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
        if self._is_left_over():
            self.disconnect()  # type: ignore[attr-defined]
        super().connect()  # type: ignore[misc]

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

    def _say_hello(self) -> dict[Any, Any]:
        """Asks for what redis-py asks only with RESP3."""
        self.send_command("HELLO", 2, check_health=False)  # type: ignore[attr-defined]
        flat = self.read_response()
        return dict(zip(flat[::2], flat[1::2], strict=True))


def make_leaving_class(base: type) -> type:
    """Derives the class for the connections of one pool; they share its count of demotions."""
    return type(base.__name__, (_LeavingConnection, base), {})


def leave_demoted(pool: redis.ConnectionPool) -> None:
    """Makes the connections of a new pool leave a server that is no longer the primary."""
    pool.connection_class = make_leaving_class(pool.connection_class)
