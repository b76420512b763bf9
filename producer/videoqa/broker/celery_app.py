"""The Celery application and transport settings that producers and workers share, and the bell.

The settings are those that proved right in our fault runs (docs/internals/architecture.md says why);
none of them makes the transport lossless, which is why a message is only a doorbell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.utils.scheduling import priority_cycle
from redis.exceptions import RedisError

from videoqa.errors import ConfigurationError, RedisUnavailable
from videoqa.jobs import TASK, Bell, check_database, place
from videoqa.settings import Settings

__all__ = ["make_celery", "ring", "speaking_broker", "task_args", "task_id"]


def make_celery(settings: Settings) -> Celery:
    """A Celery application without result backend; connects on first use.

    Raises:
        ConfigurationError: no transport here speaks the broker URL, or it names no database.
    """
    _check_broker(settings)
    app = Celery("videoqa", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=settings.connect_timeout_s,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_transport_options=_transport_options(settings),
    )
    return app


def _check_broker(settings: Settings) -> None:
    """kombu would say so as late as at the first bell, when the job is recorded, or take it for a host."""
    url = settings.broker_url or settings.redis_url
    try:
        if "://" not in url:
            raise ValueError("it is no URL")
        for one in settings.broker.split(";"):  # where one of them fails, the next is taken
            _check_one(one)
    except (KeyError, ImportError, ValueError, TypeError) as error:
        name = "broker_url" if settings.broker_url else "redis_url"
        raise ConfigurationError(
            f"VIDEOQA_{name.upper()}, for {place(url)}: {error.args[0]}; expected redis://, "
            "or in VIDEOQA_BROKER_URL another broker of Celery's whose library is installed",
            param=name,
        ) from error


def _check_one(url: str) -> None:
    connection = Connection(url)  # type: ignore[no-untyped-call]
    if connection.get_transport_cls().driver_type == "redis":  # type: ignore[no-untyped-call]
        check_database(str(connection.virtual_host or ""))
        of_socket = dict(parse_qsl(urlsplit(url).query))
        check_database(of_socket.get("virtual_host", ""))


def _transport_options(settings: Settings) -> dict[str, Any]:
    return {
        # The ledger recovers lost jobs within a lease; redelivery is only the last resort.
        "visibility_timeout": 21_600,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # With kombu's defaults a half-open connection leaves the worker dead for good.
        "socket_timeout": settings.socket_timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
        "health_check_interval": 5,
        "socket_keepalive": True,
        "queue_order_strategy": f"{__name__}:InteractiveFirst",
    }


class InteractiveFirst(priority_cycle):
    """The order in which a worker asks its queues: as it names them, interactive ones first; but bulk
    ones first each eighth time, so that they go on under any load."""

    _BULK_EVERY = 8

    def __init__(self, it: Iterable[str] | None = None) -> None:
        super().__init__(list(it or ()))  # type: ignore[no-untyped-call]
        self._asked = 0

    def consume(self, n: int) -> list[str]:
        queues: list[str] = super().consume(n)  # type: ignore[no-untyped-call]
        self._asked += 1
        if self._asked % self._BULK_EVERY:
            return queues
        return sorted(queues, key=lambda queue: not queue.endswith(".bulk"))


def ring(app: Celery, bell: Bell) -> None:
    """Publishes the doorbell of a recorded job.

    Raises:
        RedisUnavailable: nobody was told; the reaper will ring again.
    """
    with speaking_broker(app, "the job is"):
        app.send_task(
            TASK,
            args=task_args(bell),
            queue=bell.queue,
            task_id=task_id(bell),
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0.05, "interval_max": 0.1},
        )


def task_args(bell: Bell) -> tuple[str, int, int, str]:
    """What the Celery task is called with."""
    return (bell.job_id, bell.attempt, bell.bell, bell.queue)


def task_id(bell: Bell) -> str:
    return f"{bell.job_id}.{bell.attempt}.{bell.bell}"


@contextmanager
def speaking_broker(app: Celery, what: str) -> Iterator[None]:
    """Turns the broker's errors into RedisUnavailable.

    `what`: is recorded nevertheless, "the job is" say.
    """
    try:
        yield
    except (OperationalError, OSError, AttributeError, RedisError) as error:
        # AttributeError: kombu 5.7 tries again on the channel that it closed after an error.
        # RedisError: what goes past kombu to its connection.
        raise RedisUnavailable(
            f"broker at {place(app.conf.broker_url or '')} does not answer ({error}); "
            f"{what} recorded and will be announced by a worker"
        ) from error
