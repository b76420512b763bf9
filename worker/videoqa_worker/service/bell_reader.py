"""Messages of the broker, read as bells by a strict parser.

Whoever reaches the broker may have written a message. A bell is the name of a queue; all else in a message (time
limits, callbacks, chains, where to reply) is never looked at. kombu gets an item of Redis as it is written here, of
that name alone. What cannot be read is dropped: the record is the job, and a reaper rings again for it.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
from collections.abc import Collection
from typing import Any, Literal
from uuid import uuid4

from kombu.message import Message

from videoqa.broker import TASK
from videoqa_worker import log_events

__all__ = ["BellReader"]

log = logging.getLogger(__name__)

Fault = Literal["size", "envelope", "content type", "task", "body", "arguments", "queue"]

_MAX_MESSAGE_BYTES = 65_536
"""A bell takes 900 bytes in Redis, most of them Celery's headers."""
_MAX_BODY_BYTES = 4_096
_SHOWN_CHARS = 48
_SECRETS = re.compile(r"(?<=://)\S+|[\w+/=%~-]{16,}", re.ASCII)
"""The rest of a URL, and words that are long enough for a token, a signature or base64."""


class _UnreadableError(Exception):
    """A message that is no bell."""

    def __init__(self, fault: Fault, found: object) -> None:
        super().__init__(fault)
        self.fault: Fault = fault
        self.found = found


class BellReader:
    """Reads the bells of one worker's queues, and counts what it drops. Thread-safe."""

    def __init__(self, queues: Collection[str]) -> None:
        self._queues = frozenset(queues)
        self._lock = threading.Lock()
        self._faults: set[str] = set()
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Number of messages that were no bells, since the start."""
        return self._dropped

    def rewrite_item(self, item: bytes) -> bytes | None:
        """Returns the item of a Redis list as a message with nothing but its bell, or None if it is none."""
        try:
            return _encode_item(self._parse_item(item))
        except _UnreadableError as error:
            self.drop(error.fault, error.found)
            return None

    def read_message(self, message: Message) -> str | None:
        """Returns the queue that a delivered message rings for, or None if it is no bell."""
        try:
            return self._parse(
                message.headers, message.body, message.content_type, message.content_encoding
            )
        except _UnreadableError as error:
            self.drop(error.fault, error.found)
            return None

    def drop(self, fault: Fault, found: object) -> None:
        """Counts a message that is dropped; the first of each fault is logged with its first bytes.

        Arguments:
            found: the part of it that is wrong.
        """
        with self._lock:
            self._dropped += 1
            is_new = fault not in self._faults
            self._faults.add(fault)
        if is_new:
            log_events.BELL_DROPPED.log(log, fault=fault, shown=_show(found))

    def _parse_item(self, item: bytes) -> str:
        if len(item) > _MAX_MESSAGE_BYTES:
            raise _UnreadableError("size", item)
        body: str | bytes
        match _load(item, "envelope"):
            case {"properties": dict(properties), "headers": headers, "body": str(text), **rest}:
                body = text
            case _:
                raise _UnreadableError("envelope", item)
        if properties.get("body_encoding") == "base64":
            try:
                body = base64.b64decode(text, validate=True)
            except ValueError as error:
                raise _UnreadableError("body", text) from error
        return self._parse(headers, body, rest.get("content-type"), rest.get("content-encoding"))

    def _parse(
        self, headers: object, body: object, content_type: object, content_encoding: object
    ) -> str:
        if content_type != "application/json" or content_encoding != "utf-8":
            raise _UnreadableError("content type", (content_type, content_encoding))
        if not isinstance(headers, dict) or headers.get("task") != TASK:
            raise _UnreadableError("task", headers)
        if not isinstance(body, str | bytes):
            raise _UnreadableError("body", body)
        if len(body) > _MAX_BODY_BYTES:
            raise _UnreadableError("size", body)
        match _load(body, "body"):
            case [[str(queue)], *_]:
                pass
            case _:
                raise _UnreadableError("arguments", body)
        if queue not in self._queues:
            raise _UnreadableError("queue", queue)
        return queue


def _load(text: str | bytes, fault: Fault) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(fault, text) from error


def _encode_item(queue: str) -> bytes:
    """Writes the bell of a queue as kombu keeps a message in a list of Redis."""
    properties = {
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": queue},
        "delivery_mode": 2,
        "delivery_tag": str(uuid4()),
        "priority": 0,
    }
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps([[queue], {}, {}]).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": TASK},
            "properties": properties,
        }
    ).encode()


def _show(found: object) -> str:
    """Returns the first bytes in printable ASCII, without what may be a secret."""
    text = found.decode("latin-1") if isinstance(found, bytes) else str(found)
    return ascii(_SECRETS.sub("...", text[: 4 * _SHOWN_CHARS])[:_SHOWN_CHARS])
