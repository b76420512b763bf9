"""Server-sent events as bytes become them, one after the other; each of bounded size."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from videoqa.errors import GatewayError

__all__ = ["ServerEventParser"]

MOST_BYTES = 16_000_000
"""Largest event; a piece of an answer has some hundred bytes."""


@dataclass
class ServerEventParser:
    """The part of an event stream that is not whole yet. Takes what a gateway writes: lines that end with a newline."""

    _rest: bytearray = field(default_factory=bytearray)
    _name: str = ""
    _data: list[bytes] = field(default_factory=list)
    _size: int = 0

    def feed(self, part: bytes) -> list[tuple[str, Any]]:
        """Returns the names and the JSON of the events that end in this part; comments are dropped.

        Raises:
            GatewayError: an event is too large, or has no JSON object.
        """
        found: list[tuple[str, Any]] = []
        if b"\n" not in part:
            self._rest += part
        else:
            *lines, rest = (bytes(self._rest) + part).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                found += self._take(line.removesuffix(b"\r"))
        if len(self._rest) + self._size > MOST_BYTES:
            raise GatewayError(f"the gateway sent an event of more than {MOST_BYTES:,} bytes")
        return found

    def _take(self, line: bytes) -> list[tuple[str, Any]]:
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                self._name = value.decode("utf-8", "replace")
            elif name == b"data":
                self._data.append(value)
                self._size += len(value)
            return []
        data, event = b"\n".join(self._data), self._name
        self._data, self._name, self._size = [], "", 0
        if not data:
            return []
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise GatewayError("the gateway sent an event that is no JSON") from error
        if not isinstance(body, dict):
            raise GatewayError("the gateway sent an event that is no JSON object")
        return [(event, body)]
