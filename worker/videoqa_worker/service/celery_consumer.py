"""BellConsumer: Celery's consumer, with a loop that hears a bell only while a job slot is idle.

Celery connects, connects again and stops this consumer; tasks and pools it has none. A bell that was heard is
acknowledged as soon as the ledger has counted it, within milliseconds, and never waits for a job. What this worker
cannot use goes back to its queue: a worker that is full, reserved or closing keeps no bell from the others.

No message stops the consumer: Celery's own puts a malformed one back, and meets it again. Here `BellReader` reads
each first, and what it cannot read is acknowledged and gone.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.bootsteps import RUN
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu import compression
from kombu.connection import Connection
from kombu.message import Message
from kombu.transport.redis import Channel
from redis.exceptions import ResponseError

from videoqa_worker import log_events
from videoqa_worker.job.slots import JobSlots
from videoqa_worker.service.bell_reader import BellReader
from videoqa_worker.service.broken_keys import BrokenQueues, is_wrong_type

__all__ = ["BellConsumer"]

log = logging.getLogger(__name__)

_LISTEN_S = 1.0
"""Signals, heartbeats of AMQP and the state of the slots are looked at this often."""
_MOST_RETRY_S = 4.0
"""Longest time between two tries to connect: a fleet is back at work seconds after its broker is."""
_LAST_POLL_S = 0.05
"""Longest time that a slot which is idle again waits for the reply to a BRPOP."""


class BellConsumer(Consumer):  # type: ignore[misc]
    """Wakes job slots for bells, and drops all other messages."""

    def __init__(self, reader: BellReader, slots: JobSlots, *args: Any, **kwargs: Any) -> None:
        self._reader = reader
        self._slots = slots
        self._messages: deque[Message] = deque()
        self._is_hearing = False
        _refuse_compressed_bodies()
        super().__init__(*args, **kwargs)
        # Without Celery's event loop it asks for none; ours sends them, in AMQP. In Redis a BRPOP is one.
        self.amqheartbeat = self.app.conf.broker_heartbeat

    def connection_for_read(self, *args: Any, **kwargs: Any) -> Connection:
        """Returns a connection to the broker, in Redis one that sees nothing but bells."""
        connection: Connection = super().connection_for_read(*args, **kwargs)
        channel: Any = connection.default_channel
        if isinstance(channel, Channel):
            _rewrite_replies(channel, self._reader, BrokenQueues(channel))
        return connection

    def ensure_connected(self, conn: Connection) -> Connection:
        """Connects, however long the broker is away; meanwhile an idle slot looks for jobs every second."""
        failures: list[Exception] = []

        def note(error: Exception, interval_s: float) -> None:
            if not failures:
                log_events.BROKER_AWAY.log(log, address=conn.as_uri(), error=error)
            failures.append(error)

        conn.ensure_connection(  # type: ignore[no-untyped-call]
            note, interval_start=1, interval_step=1, interval_max=_MOST_RETRY_S,
            callback=self._look_for_jobs,
        )  # fmt: skip
        if failures:
            log_events.BROKER_BACK.log(log)
        return conn

    def _look_for_jobs(self) -> None:
        state.maybe_shutdown()
        if self._slots.can_hear:
            self._slots.wake()

    def loop(self, _: Any, connection: Connection, consumer: Any, *_rest: Any) -> None:
        """Hears bells until this worker closes or the connection breaks; Celery calls it for each connection."""
        self._messages.clear()  # of an earlier connection, which has put them back
        self._is_hearing = False
        consumer.on_message = self._messages.append
        self.on_ready()
        self._slots.wake()  # a bell may have been lost with the last connection
        while self.blueprint.state == RUN and self.connection:
            state.maybe_shutdown()
            self._send_heartbeat(connection)
            if self._slots.can_hear:
                self._hear(connection, consumer)
            else:
                self._leave_bells(connection, consumer)
            while self._messages:
                self._answer(self._messages.popleft(), connection, consumer)

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Drops a message that kombu could not even unpack."""
        self._reader.drop("body", message.body)
        self._ack(message)

    def _hear(self, connection: Connection, consumer: Any) -> None:
        if not self._is_hearing:
            consumer.consume()
            self._is_hearing = True
        if not self._messages:  # AMQP may have sent the first one by now
            _drain(connection, _LISTEN_S)

    def _leave_bells(self, connection: Connection, consumer: Any) -> None:
        """Has the broker give the next bells to other workers, until a slot may be idle again."""
        self._stop_hearing(consumer)
        if self._messages:
            return
        if _is_in_poll(connection):  # kombu returns what comes to its queue
            _drain(connection, _LAST_POLL_S)
        else:
            self._slots.wait_until_it_can_hear(_LISTEN_S)

    def _stop_hearing(self, consumer: Any) -> None:
        if self._is_hearing:
            self._is_hearing = False
            consumer.cancel()

    def _answer(self, message: Message, connection: Connection, consumer: Any) -> None:
        """Has a slot claim for the bell, and acknowledges it once the ledger has counted it."""
        queue = self._reader.read_message(message)
        if queue is None:
            self._ack(message)
            return
        call = self._slots.wake(queue)
        while not self._slots.wait_for_answers(_LISTEN_S):
            state.maybe_shutdown()  # the bell goes back with the connection
            self._send_heartbeat(connection)
        if not self._slots.can_hear:  # first: with its acknowledgement AMQP would send the next one
            self._stop_hearing(consumer)
        if call is not None and call.answer == "counted":
            self._ack(message)
        else:
            message.reject_log_error(log, self.connection_errors, requeue=True)  # type: ignore[no-untyped-call]

    def _ack(self, message: Any) -> None:
        message.ack_log_error(log, self.connection_errors)

    def _send_heartbeat(self, connection: Connection) -> None:
        if not (connection.supports_heartbeats and self.amqheartbeat):
            return
        if not self._is_hearing:
            _drain(connection, 0.01)  # nobody else reads those of the broker
        connection.heartbeat_check()  # type: ignore[no-untyped-call]


def _drain(connection: Connection, timeout_s: float) -> None:
    with suppress(socket.timeout):
        connection.drain_events(timeout=timeout_s)  # type: ignore[no-untyped-call]


def _is_in_poll(connection: Connection) -> bool:
    """Tells if Redis may still answer with a bell that was asked for earlier."""
    channel: Any = connection.default_channel
    return isinstance(channel, Channel) and bool(channel._in_poll)


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
    parse_response: Callable[..., Any] = channel.client.parse_response

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
