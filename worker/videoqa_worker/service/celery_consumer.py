"""BellConsumer: Celery's consumer, which no message of the broker can stop.

Celery's own lets a malformed message end the whole consumer: it is put back, and meets the next one. Here
`BellReader` reads each message first, and what it cannot read is acknowledged and gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from kombu.message import Message
from kombu.transport.redis import Channel

from videoqa_worker.service.bell_reader import BellReader

__all__ = ["BellConsumer"]

log = logging.getLogger(__name__)


class BellConsumer(Consumer):  # type: ignore[misc]
    """Hands bells to Celery, and drops all other messages."""

    def __init__(self, reader: BellReader, *args: Any, **kwargs: Any) -> None:
        self._reader = reader
        super().__init__(*args, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], Any]:
        """Returns what takes each message; called once for each connection."""
        hear = super().create_task_handler(*args, **kwargs)
        _rewrite_replies(self.task_consumer.channel, self._reader)

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


def _rewrite_replies(channel: Any, reader: BellReader) -> None:
    """Has a channel to Redis see only bells in the replies to BRPOP, by which kombu consumes.

    kombu decodes an item before any handler can look at it, and what goes wrong there ends the consumer. The item
    has left the list by then; one that is no bell becomes a reply without item.
    """
    if not isinstance(channel, Channel):
        return
    client = channel.client
    parse_response = client.parse_response

    def parse_bell(connection: Any, command: str, **options: Any) -> Any:
        reply = parse_response(connection, command, **options)
        if command != "BRPOP" or not reply:
            return reply
        queue, item = reply
        item = reader.rewrite_item(item)
        return item and (queue, item)

    client.parse_response = parse_bell
