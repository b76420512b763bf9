"""Messages over a Unix socket: a length, JSON, and at most one file descriptor.

JSON and not pickle, since reading a pickle may run code. This module knows the framing only,
not what the messages mean.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from types import TracebackType
from typing import Self

from pydantic import BaseModel

__all__ = ["MAX_MESSAGE_BYTES", "Channel", "ClosedError", "ProtocolError"]

MAX_MESSAGE_BYTES = 4 << 20
"""Headers of 20,000 frames; pixels are sent as shared memory instead."""
_HEADER = struct.Struct(">I")
_CHUNK_BYTES = 64 << 10
_CLOSES_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_SEND_TIMEOUT_S = 5.0
"""The other side always reads when it is its turn to, so 5 s mean that it hangs."""


class ClosedError(Exception):
    """The other side is gone. No EOFError, which libraries raise at the end of a file."""


class ProtocolError(Exception):
    """The other side broke the protocol."""


class Channel:
    """One end of a connection whose two sides send in turn. Not thread-safe."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.settimeout(_SEND_TIMEOUT_S)
        self._poll = select.poll()  # select.select ends at descriptor 1024
        self._poll.register(end, select.POLLIN)
        self._received = bytearray()
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def send(self, message: BaseModel, descriptor: int | None = None) -> None:
        """Sends the message, and a duplicate of the file descriptor with it.

        Raises:
            OSError: the other side is gone, or does not read. ProtocolError: the message is too long.
        """
        body = message.model_dump_json().encode()
        if len(body) > MAX_MESSAGE_BYTES:
            raise ProtocolError(
                f"got a message of {len(body)} bytes, expected at most {MAX_MESSAGE_BYTES}"
            )
        data = _HEADER.pack(len(body)) + body
        if descriptor is not None:
            sent = socket.send_fds(self._socket, [data], [descriptor])
            data = data[sent:]
        if data:
            self._socket.sendall(data)

    def receive(self, timeout_s: float | None = None) -> tuple[bytes, int | None] | None:
        """Returns the next message and its descriptor, which the caller must close.

        Returns None if the message is incomplete after `timeout_s`; the next call continues it.

        Raises:
            ClosedError: the other side is gone. ProtocolError: it broke the protocol.
        """
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        left_s = timeout_s
        while not self._is_complete():
            if not self._poll.poll(None if left_s is None else left_s * 1000):
                return None
            self._read()
            # A sender of single bytes has one ready at each poll, until 4 MB have come.
            if left_s == 0 and not self._is_complete():
                return None
            left_s = None if ends_s is None else max(0.0, ends_s - time.monotonic())
        body = bytes(self._received[_HEADER.size :])
        self._received.clear()
        descriptor, self._descriptor = self._descriptor, None
        return body, descriptor

    def is_quiet(self) -> bool:
        """Returns True while the other side is connected and has sent nothing."""
        return not (self._received or self._poll.poll(0))

    def _is_complete(self) -> bool:
        if len(self._received) < _HEADER.size:
            return False
        (length,) = _HEADER.unpack_from(self._received)
        if length > MAX_MESSAGE_BYTES:
            raise ProtocolError(
                f"got a message of {length} bytes, expected at most {MAX_MESSAGE_BYTES}"
            )
        if len(self._received) > _HEADER.size + length:
            raise ProtocolError("got a second message out of turn, expected one")
        return len(self._received) == _HEADER.size + int(length)

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _CHUNK_BYTES, 1, _CLOSES_ON_EXEC
            )
        except ConnectionError as error:
            raise ClosedError("the other side is gone") from error
        for descriptor in descriptors:
            if self._descriptor is not None:
                os.close(descriptor)
                raise ProtocolError(
                    "got a second descriptor with one message, expected one at most"
                )
            if not _CLOSES_ON_EXEC:  # elsewhere this would be a call that `seccomp` forbids
                os.set_inheritable(descriptor, False)
            self._descriptor = descriptor
        if not data:
            raise ClosedError("the other side is gone")
        self._received += data
