"""UnreadableLog: one warning for each key in Redis that this release cannot read."""

from __future__ import annotations

import logging

from videoqa.telemetry import log_events

__all__ = ["UnreadableLog"]

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 10_000


class UnreadableLog:
    """Warns of each key once: one may be read a thousand times a second."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def warn(self, key: str, why: object) -> None:
        if key in self._told:
            return
        if len(self._told) >= _MOST_REMEMBERED:
            self._told.clear()
        self._told.add(key)
        log_events.KEY_SKIPPED.log(log, key=key, reason=why)
