"""The connection to the broker: kombu's, with pools that leave a demoted Redis and have no small limit.

Chosen by class for this application's connections only; kombu's own classes stay as they are.
"""

from __future__ import annotations

from typing import Any

from celery.app.amqp import AMQP
from kombu.connection import Connection, ConnectionPool, PooledConnection
from kombu.transport import redis as kombu_redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from videoqa.jobs import make_leaving_class

__all__ = ["BrokerAMQP", "BrokerConnection"]


class Channel(kombu_redis.Channel):
    """A channel whose connections leave a demoted Redis, and try a broken one once more, as the ledger's do."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        found["connection_class"] = make_leaving_class(found["connection_class"])
        found["retry"] = Retry(
            ExponentialBackoff(cap=0.2, base=0.05), 1, supported_errors=(RedisConnectionError,)
        )
        return found


class Transport(kombu_redis.Transport):
    """kombu's transport for Redis, with these channels."""

    Channel = Channel


class _OurTransport:
    """Mixed into kombu's connections: our transport in place of kombu's if the broker is Redis."""

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()  # type: ignore[misc]
        return Transport if found is kombu_redis.Transport else found


class _PooledConnection(_OurTransport, PooledConnection):
    pass


class _ConnectionPool(ConnectionPool):
    def new(self) -> _PooledConnection:
        info = dict(self.connection._info(resolve=False))
        return _PooledConnection(self, **info)  # type: ignore[no-untyped-call]


class BrokerConnection(_OurTransport, Connection):
    """A connection to any of kombu's brokers; it, its clones and its pool use our transport for Redis."""

    def Pool(self, limit: int | None = None, **options: Any) -> _ConnectionPool:  # noqa: N802
        return _ConnectionPool(self, limit, **options)  # type: ignore[no-untyped-call]


class BrokerAMQP(AMQP):  # type: ignore[misc]
    """Celery's face to the broker, with our connections."""

    Connection = BrokerConnection
