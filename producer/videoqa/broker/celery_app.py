"""The Celery application and transport settings that producers and workers share, and ringing a bell.

The settings are those that proved right in our fault runs (docs/internals/architecture.md gives the reasons);
none of them makes the transport lossless, which is why a message is only a doorbell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from celery import Celery
from redis.exceptions import RedisError

from videoqa.broker.transport import (
    BrokerApp,
    BrokerConnection,
    name_server,
    spell_tls_for_amqp,
)
from videoqa.errors import ConfigurationError, RedisUnavailable
from videoqa.jobs import (
    MAX_CONNECTIONS,
    WrongServerError,
    explain_broken,
    server_address,
)
from videoqa.redaction import redact_text
from videoqa.redis_url import (
    SentinelGroup,
    parse_database,
    parse_options,
    parse_sentinels,
    speaks_redis,
    spell_for_celery,
)
from videoqa.settings import Settings

__all__ = ["TASK", "check_broker", "make_celery", "ring", "translate_broker_errors"]

TASK = "videoqa.answer"
"""Celery task that a bell calls; producers send it by name and never import it."""
_SETTING = "the broker's URL"
"""It is in VIDEOQA_BROKER_URL, or that of the records."""


def make_celery(settings: Settings) -> Celery:
    """Makes a Celery application without result backend, which connects on first use.

    Raises:
        ConfigurationError: no transport here speaks the broker URL, or it names no database.
    """
    _check_broker(settings)
    app = BrokerApp("videoqa", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=settings.connect_timeout_s,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        # Celery runs no tasks here, and warns where this is not set.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_hijack_root_logger=False,
        broker_transport_options=_transport_options(settings)
        | {"url_options": _read_url_options(settings), "sentinels": _read_sentinels(settings)},
    )
    app.amqp.producer_pool  # noqa: B018 - made here, before there are threads
    return app


def _check_broker(settings: Settings) -> None:
    """Refuses a broker URL that kombu cannot use, before a job is recorded.

    kombu itself would complain at the first bell, or take the URL for a host name.
    """
    url = settings.broker_url or settings.redis_url
    try:
        if "://" not in url:
            raise ValueError("it is not a URL")
        for one in settings.broker.split(";"):  # kombu fails over from one to the next
            _check_url(one)
    except Exception as error:  # kombu lets through whatever the module of a transport raises
        name = "broker_url" if settings.broker_url else "redis_url"
        why = error.args[0] if error.args else type(error).__name__
        raise ConfigurationError(
            f"VIDEOQA_{name.upper()}, for {server_address(url)}: {why}; expected redis://, "
            "or in VIDEOQA_BROKER_URL another broker of Celery's whose library is installed",
            param=name,
        ) from error


def _check_url(url: str) -> None:
    if url.startswith("sentinel://"):
        raise ValueError("write redis+sentinel://HOST,HOST/NAME/0, with the name of the primary")
    connection = BrokerConnection(url)  # type: ignore[no-untyped-call]
    kind = connection.get_transport_cls()
    if kind.driver_type == "amqp" and connection.ssl:
        spell_tls_for_amqp(connection)
    if kind.driver_type == "redis":
        parse_database(str(connection.virtual_host or ""))
        of_socket = dict(parse_qsl(urlsplit(connection.hostname or "").query))
        parse_database(of_socket.get("virtual_host", ""))


def _read_url_options(settings: Settings) -> dict[str, dict[str, Any]]:
    """Returns the options of each broker's URL, by the server's name; see `transport.py`."""
    return {_name_server(url): parse_options(url) for url in settings.brokers if speaks_redis(url)}


def _read_sentinels(settings: Settings) -> dict[str, SentinelGroup]:
    """Returns the Sentinels of each broker that has some, by the same name."""
    groups = {url: parse_sentinels(url) for url in settings.brokers}
    return {_name_server(url): group for url, group in groups.items() if group}


def _name_server(url: str) -> str:
    return name_server(BrokerConnection(spell_for_celery(url)))  # type: ignore[no-untyped-call]


def _transport_options(settings: Settings) -> dict[str, Any]:
    return {
        # No notes in Redis of messages that are not acknowledged: three writes a bell, and a search every few
        # seconds. A bell that is lost with a killed worker is rung again by a reaper.
        "ack_emulation": False,
        # With kombu's defaults a half-open connection leaves the worker dead for good.
        "socket_timeout": settings.socket_timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
        "health_check_interval": 5,
        "socket_keepalive": True,
        "max_connections": MAX_CONNECTIONS,  # kombu's default is 10 a channel
        # RabbitMQ's, which has no time limits of its own: a message counts when the server has it.
        "confirm_publish": True,
        "read_timeout": settings.socket_timeout_s,
        "write_timeout": settings.socket_timeout_s,
    }


def ring(app: Celery, queue: str) -> None:
    """Publishes a bell: a message that says nothing but that jobs wait in this queue.

    Raises:
        RedisUnavailable: the bell was not published; the reaper will ring again.
    """
    with translate_broker_errors(app):
        app.send_task(
            TASK,
            args=(queue,),
            queue=queue,
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0.05, "interval_max": 0.1},
            confirm_timeout=app.conf.broker_transport_options["read_timeout"],
        )


def check_broker(settings: Settings) -> None:
    """Connects to each broker that Celery may use, and opens a channel, as the first bell would.

    Raises:
        ConfigurationError: a URL cannot be used.
        RedisUnavailable: a broker does not answer, refuses the login, or cannot hold messages.
    """
    for url in settings.brokers:
        app = make_celery(settings.model_copy(update={"broker_url": url}))
        with closing(app), translate_broker_errors(app), app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            connection.channel().close()


@contextmanager
def translate_broker_errors(app: Celery) -> Iterator[None]:
    """Turns whatever the broker's library raises into RedisUnavailable.

    No list of classes is complete: py-amqp raises its own for a wrong password, kombu an
    AttributeError where it uses a channel that it has closed.
    """
    try:
        yield
    except Exception as error:
        raise RedisUnavailable(
            f"broker at {server_address(app.conf.broker_url or '')} {_explain(error)}"
        ) from error


def _explain(error: Exception) -> str:
    """Returns what became of the broker, the library's words for it, and the next step."""
    cause = error.__cause__ if isinstance(error.__cause__, RedisError) else error
    why, next_step = "did not take the message", ""
    if isinstance(cause, RedisError):
        why, next_step = explain_broken(cause)
    if isinstance(cause, WrongServerError):
        return f"{why}: {cause}"
    said = redact_text(f"{type(error).__name__}: {error}")
    advice = next_step.format(setting=_SETTING) or f"start that server, or correct {_SETTING}"
    return f"{why} ({said}); {advice}"
