"""GatewayConnection: one connection of a caller, with the limits that uvicorn's own lacks.

A head, from its first byte, arrives within HEAD_S, and a new connection sends one within that time. Beyond the most
connections a new one is answered with 503, in the same form as all errors. What is no HTTP gets a problem document.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from videoqa.gateway.http.problems import HttpError, describe_problem, find_status

__all__ = ["HEAD_S", "GatewayConnection"]

HEAD_S = 20.0
"""Longest time that the head of a request may take."""


class GatewayConnection(H11Protocol):
    """A connection over HTTP/1.1."""

    most: ClassVar[int] = 10_000
    """Connections of the process at a time; a subclass of each server has its own."""

    _slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begins, or refuses what is one too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._refuse(
                HttpError(
                    503,
                    "too_many_connections",
                    f"the gateway has {self.most:,} connections, and takes no more; try again later",
                    headers={"retry-after": "1"},
                )
            )
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Reads on; the time for a head runs from its first byte to its last."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._slow is None and self.conn.trailing_data[0]:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP; nothing of it is repeated."""
        self._refuse(
            HttpError(
                400,
                "malformed_http",
                "the request is no well-formed HTTP/1.1, or its head is larger than 64 kB",
            )
        )

    def _expect_head(self) -> None:
        self._slow = self.loop.call_later(HEAD_S, self._end_slow)

    def _stop_waiting(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _end_slow(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(
                HttpError(
                    408,
                    "request_too_slow",
                    f"the head of the request took more than {HEAD_S:g} s; send it at once",
                )
            )
        self.transport.close()

    def _refuse(self, error: HttpError) -> None:
        """Answers with an error, and closes."""
        self._stop_waiting()
        request_id = f"req_{secrets.token_hex(12)}"
        body = json.dumps(describe_problem(error, request_id=request_id)).encode()
        status = find_status(error)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/problem+json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "connection: close",
            *(f"{name}: {value}" for name, value in error.headers.items()),
        ]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.transport.close()
