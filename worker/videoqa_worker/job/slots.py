"""JobSlots: the threads of a worker that claim jobs and run them, one job each at a time.

A bell wakes an idle slot, which claims. If more jobs wait than the one that it got, it wakes the next idle slot, as
there are fewer bells than jobs; then it runs its job, and claims again unless nothing else waited at its last claim:
for what came since, there is a bell. So all that the consumer has to know is whether a slot is idle: only then is a
bell heard here, and otherwise it is left to other workers.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal, Self

from videoqa.jobs import ClaimResult
from videoqa_worker import log_events

__all__ = ["Call", "JobSlots"]

log = logging.getLogger(__name__)

Process = Callable[[str, Callable[[ClaimResult | None], None]], bool]
"""Claims a job and runs it, and returns True if it should be called again: `Attempts.process`."""


class Call:
    """A call for an idle slot to claim a job."""

    def __init__(self, heard: str) -> None:
        self.heard = heard
        self.answer: Literal["", "counted", "refused"] = ""
        """The fate of the bell: the ledger has counted it as heard, or it is for other workers."""


class JobSlots:
    """Idle slots are woken; busy ones claim by themselves. Thread-safe. A context manager."""

    def __init__(
        self, count: int, process: Process, may_claim: Callable[[], bool] = lambda: True
    ) -> None:
        """
        Arguments:
            may_claim: False if this worker claims nothing now, whatever slots are idle.
        """
        self._process = process
        self._may_claim = may_claim
        self._changed = threading.Condition()
        self._calls: deque[Call] = deque()
        self._unanswered: set[Call] = set()
        self._idle = count
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"job-slot-{n}", daemon=True)
            for n in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join()

    def close(self) -> None:
        """Has no slot claim any more; jobs that run go on. May be called by a signal's handler."""
        with self._changed:
            self._is_closed = True
            while self._calls:
                self._settle(self._calls.popleft(), "refused")
            self._changed.notify_all()

    def join(self) -> None:
        """Waits until no job runs, after `close`."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(1.0)

    @property
    def can_hear(self) -> bool:
        """A bell would lead to a claim: a slot is idle, and none is about to be filled."""
        with self._changed:
            return self._can_hear()

    def wait_until_it_can_hear(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(self._can_hear, timeout_s)

    def wake(self, heard: str = "") -> Call | None:
        """Has an idle slot claim; returns None if there is none.

        Arguments:
            heard: the queue of the bell that was heard; empty: none was.
        """
        with self._changed:
            if self._is_closed or len(self._calls) >= self._idle:
                return None
            call = Call(heard)
            self._calls.append(call)
            self._unanswered.add(call)
            self._changed.notify_all()
            return call

    def wait_for_answers(self, timeout_s: float) -> bool:
        """Waits until all calls are answered; returns False if some are not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unanswered, timeout_s)

    def _can_hear(self) -> bool:
        return self._idle > 0 and not self._unanswered and self._is_open()

    def _is_open(self) -> bool:
        return not self._is_closed and self._may_claim()

    def _run(self) -> None:
        while (call := self._take_call()) is not None:
            try:
                self._follow(call)
            except Exception:  # noqa: BLE001 - the thread must survive whatever one claim meets
                log_events.CLAIM_FAILED.log(log, exc_info=True)
            finally:
                self._end(call)

    def _take_call(self) -> Call | None:
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._is_closed)
            if self._is_closed:
                return None
            self._idle -= 1
            return self._calls.popleft()

    def _follow(self, call: Call) -> None:
        """Claims and runs jobs as long as more may wait."""
        note = partial(self._note, call)
        heard = call.heard
        while self._is_open() and self._process(heard, note):
            heard = ""

    def _note(self, call: Call, result: ClaimResult | None) -> None:
        """Notes the answer to a claim, and has an idle slot claim another job if more wait."""
        with self._changed:
            self._settle(call, "refused" if result is None else "counted")
            if result is not None and result.more_wait:
                self.wake()

    def _end(self, call: Call) -> None:
        with self._changed:
            self._settle(call, "counted" if self._is_open() else "refused")
            self._idle += 1
            self._changed.notify_all()

    def _settle(self, call: Call, answer: Literal["counted", "refused"]) -> None:
        call.answer = call.answer or answer
        self._unanswered.discard(call)
        self._changed.notify_all()
