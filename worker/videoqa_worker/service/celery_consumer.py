"""BellConsumer: Celery's consumer, which no message of the broker can stop.

Celery's own lets a malformed message end the whole consumer: it is put back, and meets the next one. Here
`BellReader` reads each message first, and what it cannot read is acknowledged and gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from kombu import compression
from kombu.connection import Connection
from kombu.message import Message
from kombu.transport.redis import Channel
from redis.exceptions import DataError, RedisError, ResponseError

from videoqa_worker.service.bell_reader import BellReader
from videoqa_worker.service.broken_keys import BrokenQueues, is_wrong_type, renew_broken_notes

__all__ = ["BellConsumer"]

log = logging.getLogger(__name__)


class BellConsumer(Consumer):  # type: ignore[misc]
    """Hands bells to Celery, and drops all other messages."""

    def __init__(self, reader: BellReader, *args: Any, **kwargs: Any) -> None:
        self._reader = reader
        _refuse_compressed_bodies()
        super().__init__(*args, **kwargs)

    def connection_for_read(self, *args: Any, **kwargs: Any) -> Connection:
        """Returns a connection to the broker; in Redis kombu restores old messages as soon as it has one."""
        connection: Connection = super().connection_for_read(*args, **kwargs)
        channel: Any = connection.default_channel
        if isinstance(channel, Channel):
            renew_broken_notes(channel)
            _drop_broken_notes(channel, self._reader)
            _rewrite_replies(channel, self._reader, BrokenQueues(channel))
        return connection

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], Any]:
        """Returns the function that takes each message."""
        hear = super().create_task_handler(*args, **kwargs)

        def hear_bell(message: Message) -> None:
            if self._reader.rewrite_message(message):
                hear(message)
            else:
                self._ack(message)

        return hear_bell

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Drops a message that kombu could not even unpack."""
        self._reader.drop("body", message.body)
        self._ack(message)

    def _ack(self, message: Any) -> None:
        message.ack_log_error(log, self.connection_errors)


def _refuse_compressed_bodies() -> None:
    """Has kombu unpack no body, in all of this process: 200 kB would become 200 MB before anybody looks at them."""
    known: Any = compression  # kombu has no types
    for kind in known.encoders():
        known.register(known.get_encoder(kind)[0], _refuse_to_unpack, kind)


def _refuse_to_unpack(body: bytes) -> bytes:
    raise ValueError("got a compressed body, expected a bell, which never is")


def _rewrite_replies(channel: Any, reader: BellReader, broken: BrokenQueues) -> None:
    """Has the channel see only bells in the replies to BRPOP, by which kombu consumes.

    kombu decodes an item before any handler can look at it, and what goes wrong there ends the consumer. The item
    has left the list by then; one that is no bell becomes a reply without item.
    """
    parse_response = channel.client.parse_response

    def parse_bell(connection: Any, command: str, **options: Any) -> Any:
        try:
            reply = parse_response(connection, command, **options)
        except ResponseError as error:
            if command != "BRPOP" or not is_wrong_type(error):
                raise
            broken.look()
            return None
        if command != "BRPOP" or not reply:
            return reply
        queue, item = reply
        item = reader.rewrite_item(item)
        return item and (queue, item)

    channel.client.parse_response = parse_bell


def _drop_broken_notes(channel: Any, reader: BellReader) -> None:
    """Has the channel drop what it cannot read among its notes of messages that were never acknowledged.

    Other programs' messages are among them, which kombu puts back into their queues.
    """
    qos = channel.qos
    restore_by_tag = qos.restore_by_tag

    def restore(tag: Any, client: Any = None, leftmost: bool = False) -> None:
        try:
            restore_by_tag(tag, client, leftmost)
        except Exception as error:  # whatever a note of any shape leads to
            if _is_redis_own(error):
                raise
            reader.drop("note of an unacknowledged message", tag)
            with qos.pipe_or_acquire(client=client) as pipe:
                pipe.zrem(qos.unacked_index_key, tag).hdel(qos.unacked_key, tag).execute()

    qos.restore_by_tag = restore


def _is_redis_own(error: Exception) -> bool:
    """Tells if Redis failed, rather than a command that a broken note led to."""
    if isinstance(error, DataError) or is_wrong_type(error):
        return False
    return isinstance(error, RedisError | OSError)
