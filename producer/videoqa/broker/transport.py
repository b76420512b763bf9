"""The connection to the broker: kombu's, with pools that leave a demoted Redis and have no small limit.

A RabbitMQ that takes no messages, since it is short of memory or disk, is left at once.

Chosen by class for this application's connections only; kombu's own classes stay as they are.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu.connection import Connection, ConnectionPool, PooledConnection
from kombu.pools import ProducerPool
from kombu.transport import pyamqp
from kombu.transport import redis as kombu_redis
from redis.connection import SSLConnection
from redis.exceptions import ConnectionError, ResponseError

from videoqa.jobs import DemotedError, PrimaryFinder, make_leaving_class, make_retry

__all__ = [
    "BrokerApp",
    "BrokerBlockedError",
    "BrokerConnection",
    "name_server",
    "spell_tls_for_amqp",
]


class BrokerBlockedError(Exception):
    """RabbitMQ has an alarm and reads nothing from connections that publish."""


def name_server(server: Any) -> str:
    """Returns the name of the server that a connection of kombu's leads to."""
    return f"{server.hostname or '127.0.0.1'}:{server.port or 6379}/{server.virtual_host}"


class Channel(kombu_redis.Channel):
    """A channel whose connections leave a demoted Redis, and try a broken one once more, as the ledger's do."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        server = self.connection.client
        options = server.transport_options.get("url_options", {})
        found.update(options.get(name_server(server), {}))
        group = server.transport_options.get("sentinels", {}).get(name_server(server))
        kind = found["connection_class"]
        finder = (
            PrimaryFinder(group, found, uses_tls=issubclass(kind, SSLConnection)) if group else None
        )
        found["connection_class"] = make_leaving_class(kind, finder)
        found["retry"] = make_retry()
        return found

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Asks for the next message.

        Raises:
            DemotedError: the primary is another one now.
            ConnectionError: the connection broke since the last message. redis-py connects anew in a check of its
                health, and kombu would wait at the socket of before, for ever.
        """
        connection = self.client.connection
        polled = connection._sock
        if connection.has_moved():
            raise DemotedError("the Sentinels name another primary")
        connection.check_health()
        if connection._sock is not polled:
            raise ConnectionError("the connection broke while it waited for nothing")
        super()._brpop_start(timeout)  # type: ignore[no-untyped-call]

    def _size(self, queue: str) -> int:
        """Returns the number of messages; 1 where the key holds another type, so that the queue is not empty."""
        try:
            return int(super()._size(queue))  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return 1


class Transport(kombu_redis.Transport):
    """kombu's transport for Redis, with these channels."""

    Channel = Channel


class RabbitTransport(pyamqp.Transport):
    """kombu's transport for RabbitMQ, whose connections break when the server says that it takes no messages.

    Otherwise what we publish waits in the socket without a word, and closing it waits for the alarm's end.
    """

    def establish_connection(self) -> Any:
        connection = super().establish_connection()  # type: ignore[no-untyped-call]

        def leave(reason: str) -> None:
            with suppress(OSError):  # below TLS, whose farewell would wait for an answer
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
            connection.collect()
            raise BrokerBlockedError("it is short of memory or disk, and takes no messages")

        connection.on_blocked = leave
        return connection


class RabbitTlsTransport(RabbitTransport, pyamqp.SSLTransport):
    """RabbitMQ over TLS, with the options of a URL as a Redis' has them, and with the server's name checked.

    kombu hands them on under names that py-amqp does not know, and has no name checked.
    """

    def establish_connection(self) -> Any:
        self.client.ssl = spell_tls_for_amqp(self.client)  # type: ignore[union-attr]
        return super().establish_connection()


_TLS_OPTIONS = {
    "ssl_ca_certs": "ca_certs",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
    "ssl_cert_reqs": "cert_reqs",
    "ssl_ciphers": "ciphers",
}
_CHECKS_NAME = "ssl_check_hostname"
_SPELLED = "do_handshake_on_connect"
"""Argument of py-amqp, False as by default: with none at all it would speak without TLS."""


def spell_tls_for_amqp(server: Any) -> dict[str, Any]:
    """Returns py-amqp's arguments for the TLS options of a connection of kombu's.

    Raises:
        ValueError: an option is unknown, or names a file that is none.
    """
    given = dict(server.ssl) if isinstance(server.ssl, dict) else {}
    if _SPELLED in given:
        return given  # of an earlier connection
    checks_name = given.pop(_CHECKS_NAME, True) and given.get("ssl_cert_reqs") != ssl.CERT_NONE
    for name, text in given.items():
        if name not in _TLS_OPTIONS:
            raise ValueError(
                f"got the option {name}, expected one of {', '.join((*_TLS_OPTIONS, _CHECKS_NAME))}"
            )
        if name.endswith(("certs", "file")) and not Path(text).is_file():
            raise ValueError(f"got {name}, whose value is no readable file")
    found = {_TLS_OPTIONS[name]: value for name, value in given.items()}
    # kombu has the name checked where the key is there, whatever its value.
    name_checked = {"server_hostname": server.hostname} if checks_name else {}
    return found | name_checked | {_SPELLED: False}


_TRANSPORTS = {
    kombu_redis.Transport: Transport,
    pyamqp.Transport: RabbitTransport,
    pyamqp.SSLTransport: RabbitTlsTransport,
}


class _OurTransport:
    """Mixed into kombu's connections: our transports in place of kombu's for Redis and RabbitMQ."""

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()  # type: ignore[misc]
        return _TRANSPORTS.get(found, found)


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


class _BrokerAMQP(AMQP):  # type: ignore[misc]
    """Celery's face to the broker, with our connections, in a pool of its own.

    kombu's pools are one for all applications of a process: no application could close its connections, and
    a forked child would inherit the pools with their locks.
    """

    Connection = BrokerConnection
    _producer_pool: ProducerPool | None

    @property
    def producer_pool(self) -> ProducerPool:
        if self._producer_pool is None:
            limit = self.app.conf.broker_pool_limit
            connections = self.app.connection_for_write().Pool(limit=limit)
            self._producer_pool = ProducerPool(connections, limit=limit)  # type: ignore[no-untyped-call]
        return self._producer_pool


class BrokerApp(Celery):  # type: ignore[misc]
    """A Celery application that closes its connections."""

    amqp_cls = _BrokerAMQP

    def close(self) -> None:
        producers = self.amqp.producer_pool
        producers.force_close_all()
        producers.connections.force_close_all()
        super().close()
