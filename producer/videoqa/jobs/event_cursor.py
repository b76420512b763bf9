"""EventCursor: the position of a reader in the events of one job, for `Client` and `AsyncClient`.

Sans-io: decides what to read next, how long the read may block, how long to pause while Redis is
away, and when the job or the caller's time is over. Its driver makes the calls:

    yield from cursor.begin(read_job(job_id))
    while cursor.is_open:
        sleep(cursor.pause_s)
        with cursor.reading():
            yield from cursor.receive(read_events(job_id, after=cursor.after, block_s=cursor.block_s))
            if cursor.may_be_over or (cursor.needs_state and cursor.is_over(read_state(job_id))):
                cursor.end(read_job(job_id))
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from videoqa import errors
from videoqa.contract import FINAL_STATES, Event, Job, JobState
from videoqa.jobs.event_stream import includes_first, make_first

__all__ = ["EventCursor"]

CHECK_S = 30.0
"""Most seconds of one blocking read: a record that ends without an event, as an expired one does, is noticed then."""
OUTAGE_S = 30.0
"""Limit of an outage of Redis that a waiting caller does not hear of."""
PAUSE_S = 0.5
"""Time between two reads while Redis is away."""


class EventCursor:
    """A reader's position in the events of one job."""

    job: Job
    """The job's record as it was read last, from `begin` on."""

    def __init__(
        self,
        job_id: str,
        *,
        after: str = "0",
        timeout_s: float | None = None,
        replays: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts behind the event `after`.

        Arguments:
            replays: False: the events of a job that is final already are not read.

        Raises:
            InvalidRequest: `after` is no event's id, or `timeout_s` is not a number.
        """
        found = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", after, re.ASCII)
        if not found or any(int(number or 0) >= 1 << 64 for number in found.groups()):
            raise errors.InvalidRequest(
                f"got after={after!r:.80}, expected the id of an event, or 0", param="after"
            )
        if timeout_s is not None and math.isnan(timeout_s):  # no clock is ever past it
            raise errors.InvalidRequest(
                "got timeout_s=nan, expected seconds, or None to wait for ever", param="timeout_s"
            )
        self.job_id = job_id
        self.after = after
        """Id of the last event that was received."""
        self.block_s = 0.0
        """Limit of the next read; 0: it does not block, since a final job gets no more events."""
        self.pause_s = 0.0
        """Time to sleep before the next read."""
        self.is_open = True
        """False once the job is final and all its events were received."""
        self.may_be_over = False
        """True if the last event was a final one: the record decides."""
        self.needs_state = False
        """True if there were no events: the record may have ended without one, and its state tells."""
        self._replays = replays
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline_s = None if timeout_s is None else clock() + timeout_s
        self._has_tried = False
        self._has_read = False
        self._last: Event | None = None
        self._away_since_s: float | None = None

    def begin(self, job: Job) -> list[Event]:
        """Takes the job's record, as it is before the first read; returns its first event, if it goes on."""
        self.job = job
        self.is_open = self._replays or not job.final
        if job.final or not includes_first(self.after):
            return []
        first = make_first(job.created_at)
        self.after = first.id
        return [first]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Encloses one read: sets its limit, and turns an outage of Redis into a pause after it.

        Raises:
            WaitTimeout: `timeout_s` is over.
            RedisUnavailable: Redis has been away for `OUTAGE_S`.
        """
        limit_s = self._limit_block()
        # Not while the job may be over: there may be no further event.
        may_block = not self.may_be_over and (self._has_read or not self.job.final)
        self.block_s = limit_s if may_block else 0.0
        self._has_tried = True
        self.pause_s = 0.0
        try:
            yield
        except errors.Unavailable as error:
            self.pause_s = self._bridge(error)

    def receive(self, events: Sequence[Event]) -> Iterator[Event]:
        """Passes on the events that a read returned."""
        self._away_since_s = None
        self._has_read = True
        for event in events:
            self.after = event.id
            self._last = event
            yield event
        self.needs_state = not events
        # A retried job's events go on after its first final one.
        self.may_be_over = bool(events) and events[-1].state in FINAL_STATES

    @staticmethod
    def is_over(state: JobState | None) -> bool:
        """Returns True if a job in this state gets no more events; None: its record is gone."""
        return state is None or state in FINAL_STATES

    def end(self, job: Job) -> None:
        """Closes the cursor if the job's record is final, and not by another attempt than the last event tells of."""
        self.job = job
        last = self._last if self.may_be_over else None
        has_more = last is not None and (last.state, last.attempt) != (job.state, job.attempt)
        self.is_open = not job.final or has_more
        self.may_be_over = False

    def _limit_block(self) -> float:
        limit_s = CHECK_S * random.uniform(0.5, 1.0)  # noqa: S311 - spreads the looks of many waiters
        if self._deadline_s is None:
            return limit_s
        left_s = self._deadline_s - self._clock()
        if left_s <= 0 and self._has_tried:
            raise errors.WaitTimeout(
                f"job {self.job_id} was not finished within {self._timeout_s:g} s; it continues: "
                "wait again"
            )
        return min(limit_s, max(left_s, 0.001)) if left_s > 0 else 0.0

    def _bridge(self, error: errors.Unavailable) -> float:
        now_s = self._clock()
        self._away_since_s = self._away_since_s or now_s
        if now_s - self._away_since_s > OUTAGE_S:
            raise error
        return PAUSE_S
