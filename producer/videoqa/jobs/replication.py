"""Waiting for replicas: what a caller is told of as recorded survives a failover to one of them.

Replication is asynchronous: a primary that dies takes with it what it had acknowledged and not yet sent. With
`VIDEOQA_WAIT_REPLICAS` a script that records something is followed by WAIT, on the same connection and in the same
round trip.
"""

from __future__ import annotations

import logging
from typing import Any

import redis

from videoqa.errors import NotReplicated
from videoqa.local_stack import describe_address
from videoqa.telemetry import log_events

__all__ = ["ReplicaWait"]

log = logging.getLogger(__name__)

WAIT_S = 1.5
"""Longest wait for the acknowledgements; below every `socket_timeout`, which is more than 2 s."""
_CALLERS = ("submit", "cancel", "retry", "purge", "pause", "bulk", "change")
"""Scripts whose outcome somebody is told of, and relies on."""
_WORKERS = ("finish", "fail")
"""Scripts that end an attempt. What is lost of them runs again: the worker is warned, and goes on."""


class ReplicaWait:
    """Runs scripts, and waits until so many replicas have what they wrote."""

    def __init__(self, count: int, *, url: str, prefix: str) -> None:
        self._count = count
        self._url = url
        self._mark = f"{prefix}:replicated"
        self._has_warned = False

    def run(self, client: redis.Redis, script: str, *command: str | float) -> Any:
        """Runs one command that calls the script; raises NotReplicated if replicas do not answer in time."""
        if not self._follows(script):
            return client.execute_command(*command)  # type: ignore[no-untyped-call]
        pipe = client.pipeline(transaction=False)
        pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        self.add(pipe, script)
        (reply,) = self.check(script, pipe.execute(raise_on_error=False))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _follows(self, script: str) -> bool:
        return self._count > 0 and script in _CALLERS + _WORKERS

    def add(self, pipe: Any, script: str) -> None:
        """Adds the wait behind calls of the script."""
        if self._follows(script):
            # WAIT is about this connection's own writes, and a call that is repeated finds all written.
            pipe.set(self._mark, 1)
            pipe.execute_command("WAIT", self._count, int(WAIT_S * 1000))

    def check(self, script: str, replies: list[Any]) -> list[Any]:
        """Returns the replies of the calls that `add` came behind; raises NotReplicated."""
        if not self._follows(script):
            return replies
        *found, marked, answered = replies
        if all(isinstance(reply, Exception) for reply in found):
            return found
        for reply in (marked, answered):
            if isinstance(reply, Exception):
                raise reply
        if answered < self._count:
            self._tell(script, answered)
        else:
            self._has_warned = False
        return found

    def _tell(self, script: str, answered: int) -> None:
        why = (
            f"{describe_address(self._url)} has recorded this, but {answered} of {self._count} replicas have "
            f"acknowledged it within {WAIT_S:g} s (VIDEOQA_WAIT_REPLICAS), so that a failover now may lose it"
        )
        if script in _CALLERS:
            raise NotReplicated(
                f"{why}; repeat the call, a submit with the same idempotency_key, and look at the replicas"
            )
        if not self._has_warned:
            log_events.REPLICAS_MISSING.log(log, reason=why)
        self._has_warned = True
