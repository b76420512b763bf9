"""Ringing many bells in one round trip, if the broker is Redis.

kombu publishes one message a call, and spends most of the time on building it. Therefore one message
of each queue is captured from kombu as it would send it, and each bell is a copy of that with its own
id and arguments: all that kombu and Celery put into a message is in the copies too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu.transport.redis import Channel

from videoqa.broker.celery_app import TASK, ring, task_args, task_id, translate_broker_errors
from videoqa.jobs import Bell

__all__ = ["ring_many"]


def ring_many(app: Celery, bells: Sequence[Bell]) -> None:
    """Publishes the doorbells of recorded jobs.

    Raises:
        RedisUnavailable: some or all were not published; the reaper will ring again.
    """
    with translate_broker_errors(app), app.producer_or_acquire() as producer:
        channel = producer.channel
        if isinstance(channel, Channel):
            _push(channel, _encode_bells(app, channel, bells))
            return
    for bell in bells:
        ring(app, bell)


def _push(channel: Any, messages: Iterable[tuple[str, str]]) -> None:
    with channel.conn_or_acquire() as client:
        pipe = client.pipeline(transaction=False)
        for key, message in messages:
            pipe.lpush(key, message)
        pipe.execute()


def _encode_bells(app: Celery, channel: Any, bells: Sequence[Bell]) -> Iterator[tuple[str, str]]:
    """Yields the Redis key and the text of each message."""
    makers: dict[str, tuple[str, Callable[[Bell], str]]] = {}
    for bell in bells:
        if bell.queue not in makers:
            pattern = _capture_message(app, channel, bell)
            key = channel._q_for_pri(bell.queue, pattern["properties"]["priority"])
            makers[bell.queue] = key, _make_encoder(pattern)
        key, copy = makers[bell.queue]
        yield key, copy(bell)


def _capture_message(app: Celery, channel: Any, bell: Bell) -> dict[str, Any]:
    """Returns the message that kombu would push for this bell, without pushing it."""
    taken: list[dict[str, Any]] = []
    producer = app.amqp.Producer(channel, auto_declare=False)
    put = channel._put
    channel._put = lambda queue, message, **options: taken.append(message)
    try:
        app.send_task(
            TASK, args=task_args(bell), queue=bell.queue, task_id=task_id(bell), producer=producer
        )
    finally:
        channel._put = put
    return taken[0]


def _make_encoder(pattern: dict[str, Any]) -> Callable[[Bell], str]:
    """Makes a function that encodes the message of any bell of the same queue."""
    headers, properties = pattern["headers"], pattern["properties"]
    _, *rest = json.loads(base64.b64decode(pattern["body"]))

    def copy(bell: Bell) -> str:
        name, args = task_id(bell), task_args(bell)
        body = json.dumps([args, *rest])
        return json.dumps(
            pattern
            | {
                "body": base64.b64encode(body.encode()).decode(),
                "headers": headers | {"id": name, "root_id": name, "argsrepr": repr(args)},
                "properties": properties | {"correlation_id": name, "delivery_tag": str(uuid4())},
            }
        )

    return copy
