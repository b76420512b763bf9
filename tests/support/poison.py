"""Messages that are no bells, or more than bells, as anybody who reaches the broker could write them."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu.transport.redis import Channel

from videoqa.broker import TASK, make_celery
from videoqa.settings import Settings

__all__ = ["POISON", "STILL_BELLS", "Poison"]

Message = dict[str, Any]
Kind = Callable[[Message], bytes]
"""Makes an item of the Redis list out of a sound message."""


def _dump(message: object) -> bytes:
    return json.dumps(message).encode()


def _with_body(body: object) -> Kind:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda message: _dump(message | {"body": base64.b64encode(text).decode()})


def _with(**fields: object) -> Kind:
    return lambda message: _dump(
        message | {name.replace("_", "-"): found for name, found in fields.items()}
    )


def _without(name: str) -> Kind:
    return lambda message: _dump({key: found for key, found in message.items() if key != name})


def _with_headers(**headers: object) -> Kind:
    return lambda message: _dump(message | {"headers": message["headers"] | headers})


def _with_properties(**found: object) -> Kind:
    return lambda message: _dump(message | {"properties": message["properties"] | found})


def _with_args(change: Callable[[list[Any]], object]) -> Kind:
    def make(message: Message) -> bytes:
        args, *rest = json.loads(base64.b64decode(message["body"]))
        return _with_body([change(args), *rest])(message)

    return make


def _with_embedded(**embedded: object) -> Kind:
    def make(message: Message) -> bytes:
        args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        return _with_body([args, kwargs, embedded])(message)

    return make


_OTHER_TASK = {"task": "celery.backend_cleanup", "args": [], "kwargs": {}, "options": {}}

STILL_BELLS: dict[str, Kind] = {
    "no delivery tag": _with_properties(delivery_tag={}),
    "delivery info that is no object": _with_properties(delivery_info=7),
    "priority that is no number": _with_properties(priority=[]),
    "timelimit of a wrong shape": _with_headers(timelimit="soon"),
    "eta that is no time": _with_headers(eta="tomorrow"),
    "expires that is a number": _with_headers(expires=5),
    "id that is an object": _with_headers(id={"a": 1}),
    "chain": _with_embedded(chain=[_OTHER_TASK], callbacks=None, errbacks=None, chord=None),
    "callbacks": _with_embedded(callbacks=[_OTHER_TASK], errbacks=[_OTHER_TASK], chord=_OTHER_TASK),
    "compression that is none": _with_headers(compression="zlib"),
    "reply": _with_properties(reply_to="somewhere", correlation_id=[1]),
}
"""Their queue can be read; the rest is not looked at."""

POISON: dict[str, Kind] = {
    "no bytes": lambda message: b"",
    "no JSON": lambda message: b"\x00\xff\x1b[31mpoison\r\n",
    "JSON cut off": lambda message: _dump(message)[:-20],
    "number as envelope": lambda message: b"5",
    "null as envelope": lambda message: b"null",
    "list as envelope": lambda message: b"[]",
    "empty envelope": lambda message: b"{}",
    "deep envelope": lambda message: b"[" * 50_000,
    "huge envelope": lambda message: b'"' + b"x" * (4 << 20) + b'"',
    "no properties": _without("properties"),
    "properties that are a list": _with(properties=[]),
    "no headers": _without("headers"),
    "headers that are a string": _with(headers="task"),
    "unknown task": _with_headers(task="os.system"),
    "task of Celery's own": _with_headers(task="celery.backend_cleanup"),
    "task that is a list": _with_headers(task=[TASK]),
    "pickle": lambda message: _with_body(pickle.dumps(print))(
        message | {"content-type": "application/x-python-serialize", "content-encoding": "binary"}
    ),
    "yaml": lambda message: _with_body(b"!!python/object/apply:os.getpid []")(
        message | {"content-type": "application/x-yaml"}
    ),
    "content type that is a number": _with(content_type=5),
    "unknown encoding": _with(content_encoding="klingon"),
    "broken base64": _with(body="%%%"),
    "body that is an object": _with(body={"a": 1}),
    "list as body": _with_body([]),
    "number as body": _with_body(5),
    "empty object as body": _with_body({}),
    "null as body": _with_body(None),
    "body that is no JSON": _with_body(b"\xff\xfe{"),
    "deep body": _with_body(b"[" * 4_000),
    "no arguments": _with_args(lambda args: []),
    "arguments that are a string": _with_args(lambda args: "args"),
    "queue that is no string": _with_args(lambda args: [{"$ne": 1}]),
    "queue with control characters": _with_args(lambda args: [f"{args[0]}\x1b]0;x\x07"]),
    "arguments of an older release": _with_args(lambda args: ["job_1", 1, 1, *args]),
    "queue of another model": _with_args(lambda args: ["faults.other.interactive"]),
}


class Poison:
    """Writes such messages into a fleet's queues, past Celery. A context manager."""

    def __init__(self, settings: Settings) -> None:
        self._app: Celery = make_celery(settings)
        self._connection = self._app.connection_for_write()

    def __enter__(self) -> Poison:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.release()
        self._app.close()

    def put(self, kind: Kind, queue: str) -> None:
        """Puts a message of this kind, made of the queue's bell, at the end of the queue."""
        channel = self._connection.default_channel
        assert isinstance(channel, Channel)
        with channel.conn_or_acquire() as client:
            client.lpush(queue, kind(self._message(channel, queue)))

    def _message(self, channel: Any, queue: str) -> Message:
        """Returns the message that kombu would push."""
        taken: list[Message] = []
        put, channel._put = channel._put, lambda queue, message, **options: taken.append(message)
        try:
            self._app.send_task(
                TASK,
                args=(queue,),
                queue=queue,
                producer=self._app.amqp.Producer(channel, auto_declare=False),
            )
        finally:
            channel._put = put
        return taken[0]
