"""Following: where a reader of a job's events stands, for readers that block and for those that await.

Decides what to read next, how long to wait for it and when to give up; reads nothing itself.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence

from videoqa import errors
from videoqa.contract import FINAL_STATES, Event

__all__ = ["Following"]

BLOCK_S = 2.0
"""How long one blocking read waits; below the socket time-out, so that a dead Redis is noticed."""
OUTAGE_S = 30.0
"""How long a caller that already waits goes on waiting for a Redis that is away."""
PAUSE_S = 0.5


class Following:
    """One reader of one job."""

    def __init__(
        self,
        job_id: str,
        after: str,
        timeout_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises InvalidRequest: `after` is no event's id, or `timeout_s` no number."""
        if not re.fullmatch(r"\d+(-\d+)?", after):
            raise errors.InvalidRequest(
                f"got after={after!r}, expected the id of an event, or 0", param="after"
            )
        if timeout_s is not None and math.isnan(timeout_s):  # no clock is ever past it
            raise errors.InvalidRequest(
                "got timeout_s=nan, expected seconds, or None to wait for ever", param="timeout_s"
            )
        self.after = after
        """The last event that was read."""
        self.block_s = 0.0
        """For the next read. What is there already comes first: a final job gets no more."""
        self.at_end = False
        """It may have been the job's last event: ask the record."""
        self._job_id = job_id
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline = None if timeout_s is None else clock() + timeout_s
        self._away_since_s: float | None = None

    def take(self, found: Sequence[Event]) -> Iterator[Event]:
        """What a read gave."""
        self._away_since_s = None
        for event in found:
            self.after = event.id
            yield event
        # A retried job's events go on after its first final one.
        self.at_end = not found or found[-1].state in FINAL_STATES

    def go_on(self) -> None:
        """Before the next read. Raises WaitTimeout."""
        if self._deadline is None:
            self.block_s = BLOCK_S
            return
        left_s = self._deadline - self._clock()
        if left_s <= 0:
            raise errors.WaitTimeout(
                f"job {self._job_id} was not finished within {self._timeout_s:g} s; it goes on, "
                "wait again"
            )
        self.block_s = min(BLOCK_S, max(left_s, 0.001))

    def pause_s(self, error: errors.RedisUnavailable) -> float:
        """How long to wait for a Redis that is away; raises the error if it stays so."""
        now_s = self._clock()
        self._away_since_s = self._away_since_s or now_s
        if now_s - self._away_since_s > OUTAGE_S:
            raise error
        return PAUSE_S
