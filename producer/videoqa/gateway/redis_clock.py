"""Redis' clock, on which ages on pages are counted."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["RedisClock"]

MEASURED_S = 30.0
"""Time after which the difference to our clock is measured again."""


class RedisClock:
    """The time of Redis as of the last look at it, counted on by a clock that nobody sets."""

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._measured_s = 0.0

    def is_old(self) -> bool:
        """Tells if it is time for a look at Redis' clock."""
        is_measured = self._offset_s is not None
        return not is_measured or time.monotonic() - self._measured_s > MEASURED_S

    def set(self, redis_s: float) -> None:
        """Takes the UNIX time that Redis has now."""
        self._measured_s = time.monotonic()
        self._offset_s = redis_s - self._measured_s

    def now(self) -> datetime:
        """Returns the time; that of this machine before the first look."""
        if self._offset_s is None:
            return datetime.now(UTC)
        return datetime.fromtimestamp(time.monotonic() + self._offset_s, UTC)
